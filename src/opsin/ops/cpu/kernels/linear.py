"""Linear layers over packed weights: y[t, n] = sum over k of w[n, k] * x[t, k] (+ bias[n]) (+ residual[t, n]).

With an activation, it is taken of the sum and the bias; there is no residual then.

Items are strips of STRIP outputs. For quantised weights x comes as int8 in groups of 32 (see `quantise`), and a
result is a float32 sum over groups in order of k; for 16-bit integers it comes likewise in blocks of BLOCK (see
`quantise_int16`); for float weights it is a sum over k in order. One row takes the same sums in the same order as many,
so a row's result does not depend on its company.

Arguments stand in `linear_sums`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.linear_apart import few_of, unpacked
from opsin.ops.cpu.kernels.linear_sums import (
    OUTPUTS,
    RECORDS_WORD,
    ROWS,
    SCRATCH,
    SCRATCH_BYTES,
    Y_ROW,
    Y,
    sweep_of,
)
from opsin.ops.cpu.kernels.pointwise import function
from opsin.ops.cpu.kernels.shared import jit, nothing
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import FEW_ROWS, SOME_ROWS, STRETCH, is_apart
from opsin.ops.layout import STRIP, Layout


def tile_shapes(simd: Simd, kind: str) -> tuple[tuple[int, int], ...]:
    """(vectors, tokens) of the tiles for one row, for two and for more: what fits the registers."""
    few = min(STRIP // simd.lanes, 4)
    if simd.lanes == 16:
        return (few, 1), (few, 2), (few, 4), (few, 6 if kind == "planes" else 8)
    return (few, 1), (few, 2), (2, 5) if kind != "planes" else (2, 4) if simd.isa.block else (1, 4)


def make(
    simd: Simd, kind: str, bits: int = 0, group: int = 32, zero: int = 0, minimum: bool = False, codes: bool = False,
    paired: bool = False, table: tuple[int, ...] = (), activation: str = "",
) -> Any:  # fmt: skip
    layout = Layout(kind, bits, group, zero, minimum, codes, paired, table)
    apart, at, eight = is_apart(simd.isa.dot, layout), simd.i64_at, layout.bits == 8
    shapes = [(v, t) for v, t in tile_shapes(simd, kind) if t <= 2 or not apart]
    in_tiles = _in_tiles(
        simd, layout, [Dots(simd, vectors=v, tokens=t, bits=bits, zero=zero, table=table) for v, t in shapes]
    )
    most = shapes[-1][1]
    activate, active = activating(simd, activation or "copy"), activation != ""
    unpack, take = unpacked(simd, layout) if apart else (nothing, nothing)
    few = few_of(simd, layout) if apart else nothing

    def linear(args: int, first: int, last: int, thread: int) -> int:
        rows, outputs = at(at(args + ROWS)), at(args + OUTPUTS)
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        if apart and 2 < rows <= FEW_ROWS:
            few(args, first, last, scratch)
        records = at(args + RECORDS_WORD)
        at_once = STRETCH if eight and most < rows <= SOME_ROWS else records
        for strip in range(first, last):
            columns = min(STRIP, outputs - strip * STRIP)
            if apart and rows > FEW_ROWS:
                unpack(args, strip, scratch)
                take(args, strip, rows, columns, scratch)
            elif not apart or rows <= 2:
                start = 0
                while start < records:
                    in_tiles(args, strip, rows, start, min(at_once, records - start), scratch)
                    start += at_once
            if active:  # not of each tile at once: what was just stored in part cannot be read again without waiting
                for t in range(rows):
                    activate(args, at(args + Y) + t * at(args + Y_ROW) + 4 * STRIP * strip, columns)
        return 0

    return linear


def _in_tiles(simd: Simd, layout: Layout, tiles: list[Dots]) -> Any:
    """All rows of a strip: the smallest tile that holds those that are left, or else the largest."""
    sweeps, middle, most = [sweep_of(simd, tile, layout) for tile in tiles], tiles[-2].tokens, tiles[-1].tokens
    one, two, few, many, has_few = sweeps[0], sweeps[1], sweeps[-2], sweeps[-1], middle > 2

    @jit
    def in_tiles(args: int, strip: int, rows: int, start: int, count: int, scratch: int) -> None:
        row = 0
        while row < rows:
            left, sums = rows - row, scratch + 4 * STRIP * row
            if left == 1:
                one(args, strip, row, 1, start, count, sums)
                row += 1
            elif left == 2 or most == 2:
                two(args, strip, row, 2, start, count, sums)
                row += 2
            elif has_few and left <= middle:
                few(args, strip, row, left, start, count, sums)
                row += middle
            else:
                many(args, strip, row, left, start, count, sums)
                row += most

    return in_tiles


def activating(simd: Simd, name: str) -> Callable[..., Any]:
    """Values that were just written, in place: they are still near."""
    f, load, store, lanes, zero = function(simd, name), simd.load_part, simd.store_part, simd.lanes, simd.zero

    @jit
    def activate(args: int, y: int, width: int) -> None:
        for i in range(0, width, lanes):
            store(y + 4 * i, f(args, load(y + 4 * i, width - i), zero()), width - i)

    return activate
