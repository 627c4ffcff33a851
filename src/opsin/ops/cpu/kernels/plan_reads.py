"""Rows of a batch to tiles for `attend`: once a step, one item.

A tile is up to `limit` rows of one sequence, or (dense) rows of one part that see the same keys. Where
tiles are too few for the threads, a row with many keys is cut into its chunks, whose sums `merge_chunks` puts
together in the order of the sequence.

Arguments: address of the row count, sequence, first, last, tiles, merges, address of the number of attend's items,
of merge's items, rows a tile, KV heads, tiles wanted, slots in `partial`, rows a part (dense).
"""

from __future__ import annotations

from typing import Any

from opsin.ops import CHUNK
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

ROWS, SEQUENCE, FIRST, LAST, TILES, MERGES, ATTENDS, JOINS, LIMIT, HEADS, WANTED, SLOTS, PART = (
    8 * i for i in range(13)
)


def make(simd: Simd, dense: bool) -> Any:
    at, i32, put, put64 = simd.i64_at, simd.i32_at, simd.put_i32, simd.put_i64

    @jit
    def run_length(args: int, row: int, rows: int) -> int:
        """Rows from `row` on that one tile takes."""
        mark, n = at(args + FIRST) if dense else at(args + SEQUENCE), 1
        if dense:
            rows = min(rows, (row // at(args + PART) + 1) * at(args + PART))
        end = at(args + LAST) if dense else mark
        while (
            row + n < rows and n < at(args + LIMIT) and i32(mark + 4 * (row + n)) == i32(mark + 4 * row)
            and i32(end + 4 * (row + n)) == i32(end + 4 * row)
        ):  # fmt: skip
            n += 1
        return n

    @jit
    def base(args: int, row: int) -> int:
        """The key at which the row's chunks begin to be counted."""
        return i32(at(args + FIRST) + 4 * row) if dense else 0

    @jit
    def chunks(args: int, row: int) -> int:
        first, last = i32(at(args + FIRST) + 4 * row), i32(at(args + LAST) + 4 * row)
        if dense:
            first, last = 0, last - first
        return (last + CHUNK - 1) // CHUNK - first // CHUNK if last > first else 0

    def plan_reads(args: int, begin: int, end: int, thread: int) -> int:
        rows, row, tiles = at(at(args + ROWS)), 0, 0
        while row < rows:
            row += run_length(args, row, rows)
            tiles += 1
        few = tiles * at(args + HEADS) < at(args + WANTED)
        row, tile, slot, merges = 0, at(args + TILES), 0, 0
        while row < rows:
            n, parts = run_length(args, row, rows), chunks(args, row)
            if few and n == 1 and parts > 1 and slot + parts <= at(args + SLOTS):
                join = at(args + MERGES) + 12 * merges
                put(join, row)
                put(join + 4, slot)
                put(join + 8, parts)
                merges += 1
                for part in range(parts):
                    put(tile, row)
                    put(tile + 4, 1)
                    put(tile + 8, (i32(at(args + FIRST) + 4 * row) - base(args, row)) // CHUNK + part)
                    put(tile + 12, slot + part)
                    tile += 16
                slot += parts
            else:
                put(tile, row)
                put(tile + 4, n)
                put(tile + 8, -1)
                put(tile + 12, 0)
                tile += 16
            row += n
        put64(at(args + ATTENDS), (tile - at(args + TILES)) // 16 * at(args + HEADS))
        put64(at(args + JOINS), merges)
        return 0

    return plan_reads
