"""Sums of linear layers over one strip of packed weights, as tiles of `Dots` read them.

Arguments (int64 words): weights, x, bytes a row of x, scales, bytes a row of scales, sums, lifts, y, bytes a row
of y, outputs, records (or inputs, for floats and 16-bit integers), address of the row count, bias or 0, residual or 0,
bytes a row of it, scratch or 0, bytes of scratch a thread, steps of four inputs a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.int16_sums import sums_of
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import fetched_ahead
from opsin.ops.layout import FLOAT_BYTES, RECORD, STRIP, Layout

(W, X, X_ROW, SCALES, SCALES_ROW, SUMS, LIFTS, Y, Y_ROW, OUTPUTS, RECORDS_WORD, ROWS, BIAS, RESIDUAL, RESIDUAL_ROW,
 SCRATCH, SCRATCH_BYTES, STEPS) = (8 * i for i in range(18))  # fmt: skip
ARGUMENT_BYTES = STEPS + 8


def sweep_of(simd: Simd, tile: Dots, layout: Layout) -> Any:
    """Some records of one strip (or all inputs, where weights have 16 bits or more) times the tile's rows.

    Sums of the first ones stand at `sums` until the next come; those of all are written out.
    """
    add = {"planes": _planes, "int16": _integers}.get(layout.kind, _floats)(simd, tile, layout)
    at, wide, tokens, finish = simd.i64_at, tile.vectors * simd.lanes, tile.tokens, finish_of(simd, tile)
    parts, line, zeros, load, store = STRIP // wide, 4 * wide, tile.zeros, tile.load, tile.store

    @jit
    def sweep(args: int, strip: int, row: int, left: int, start: int, count: int, sums: int) -> None:
        columns = min(STRIP, at(args + OUTPUTS) - strip * STRIP)
        for part in range(parts):
            place = sums + part * tokens * line
            acc = add(
                args, zeros() if start == 0 else load(place, line, tokens, wide), strip, part, row, left, start, count
            )
            if start + count < at(args + RECORDS_WORD):
                store(acc, place, line, tokens, wide)
            else:
                finish(args, acc, strip, part, row, left, columns)

    return sweep


def finish_of(simd: Simd, tile: Dots) -> Any:
    """Sums of a part of a strip, written out."""
    at, wide = simd.i64_at, tile.vectors * simd.lanes
    add_bias, add_rows, store = tile.add_bias, tile.add_rows, tile.store

    @inlined
    def finish(args: int, acc: Any, strip: int, part: int, row: int, left: int, columns: int) -> None:
        y_row, here, column = at(args + Y_ROW), columns - part * wide, strip * STRIP + part * wide
        bias, residual = at(args + BIAS), at(args + RESIDUAL)
        if bias != 0:
            acc = add_bias(acc, bias + 4 * column)
        if residual != 0:
            stride = at(args + RESIDUAL_ROW)
            acc = add_rows(acc, residual + row * stride + 4 * column, stride, left, here)
        store(acc, at(args + Y) + row * y_row + 4 * column, y_row, left, here)

    return finish


def _planes(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    """Sums over records; with codes, over blocks of RECORDS records that share factors.

    The next stretch of a strip is fetched from memory while one is multiplied, by each tile its share.
    """
    at, prefetch, tokens = simd.i64_at, simd.prefetch_far, tile.tokens
    add_record = record_of(simd, tile, layout)
    wide, per = tile.vectors * simd.lanes, 4 * RECORD // layout.group  # bytes of a record's sums
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, factors, ones, fetch = layout.record_bytes, tile.factors, tile.ones, fetching(simd, tile, layout)
    block, strip_bytes = layout.block_records, jit(layout.strip_bytes)

    @jit
    def add(args: int, acc: Any, strip: int, part: int, row: int, left: int, start: int, count: int) -> Any:
        records, x_row, s_row = at(args + RECORDS_WORD), at(args + X_ROW), at(args + SCALES_ROW)
        w = at(args + W) + strip * strip_bytes(RECORD * records) + strip_bytes(RECORD * start)
        x, s, sum_row = at(args + X) + row * x_row + start * RECORD, at(args + SCALES) + row * s_row, s_row * (per // 4)
        sums, lifts = at(args + SUMS) + row * sum_row + start * per, at(args + LIFTS) + row * sum_row + start * per
        s += 4 * start
        rows, in_stretches, to_next, share, end = at(at(args + ROWS)), count < records, count * record, 0, 0
        if in_stretches and part == 0:
            share, end = record * row // rows // 64 * 64, record * min(row + tokens, rows) // rows // 64 * 64
        done, ahead = 0, row + part == 0 and not in_stretches
        while done < count:
            scale_of, lift_of = ones(), ones()
            if codes:
                scale_of = factors(w + part * wide * 2)
                if ahead:
                    fetch(w, factor_bytes)
                if minimum:
                    lift_of = factors(w + 2 * STRIP + part * wide * 2)
                w += factor_bytes
            for _ in range(min(block, count - done)):
                head, plane = w + part * wide * size, w + part * wide * 4
                for line in range(share, end, 64):
                    prefetch(w + to_next + line)
                if ahead:
                    fetch(w, record)
                acc = add_record(acc, scale_of, lift_of, head, plane, x, x_row, left, s, s_row, sums, lifts, sum_row)
                w += record
                x += RECORD
                s += 4
                sums += per
                lifts += per
            done += block
        return acc

    return add


def record_of(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    """32 inputs: one group of weights, or two of 16."""
    scale, lift = tile.scale[layout.numbers[0]], tile.lift[layout.numbers[1]]
    head, minima, minimum = layout.head_bytes, layout.minima_at, layout.minimum
    half, later = STRIP * layout.scale_size, 4 * simd.lanes if tile.repeated else 4  # bytes between groups' lifts
    two = layout.group == 16
    dots, late = (tile.part(0, 4), tile.part(4, 8)) if two else (tile.dots, tile.dots)

    @inlined
    def add_record(
        acc: Any, fs: Any, fm: Any, w: int, plane: int, x: int, x_row: int, left: int, s: int, s_row: int, sums: int,
        lifts: int, sum_row: int,
    ) -> Any:  # fmt: skip
        acc = scale(acc, dots(plane + head, x, x_row, left, sums, sum_row), fs, w, s, s_row, left)
        if minimum:
            acc = lift(acc, fm, w + minima, lifts, sum_row, left)
        if two:
            acc = scale(acc, late(plane + head, x, x_row, left, sums + 4, sum_row), fs, w + half, s, s_row, left)
            if minimum:
                acc = lift(acc, fm, w + minima + half, lifts + later, sum_row, left)
        return acc

    return add_record


def _floats(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    at, step, fetch = simd.i64_at, tile.step[layout.kind], fetching(simd, tile, layout)
    size, wide, strip_bytes = FLOAT_BYTES[layout.kind], tile.vectors * simd.lanes, jit(layout.strip_bytes)

    @jit
    def add(args: int, acc: Any, strip: int, part: int, row: int, left: int, start: int, count: int) -> Any:
        inputs, x_row = at(args + RECORDS_WORD), at(args + X_ROW)
        w = at(args + W) + strip_bytes(strip * inputs + start) + part * wide * size
        x = at(args + X) + row * x_row + 4 * start
        ahead = row + part == 0
        for _ in range(count):
            if ahead:
                fetch(w, STRIP * size)
            acc = step(acc, w, x, x_row, left)
            w += STRIP * size
            x += 4
        return acc

    return add


def _integers(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    at, wide, strip_bytes = simd.i64_at, 4 * tile.vectors * simd.lanes, jit(layout.strip_bytes)
    sums = sums_of(simd, tile, fetching(simd, tile, layout))

    @jit
    def add(args: int, acc: Any, strip: int, part: int, row: int, left: int, start: int, inputs: int) -> Any:
        x_row, s_row = at(args + X_ROW), at(args + SCALES_ROW)
        w = at(args + W) + strip * strip_bytes(inputs) + part * wide
        x, s = at(args + X) + row * x_row, at(args + SCALES) + row * s_row
        return sums(acc, w, 0, x, x_row, s, s_row, left, (inputs + 1) // 2, row + part == 0)

    return add


def fetching(simd: Simd, tile: Dots, layout: Layout) -> Any:
    """fetch(w, size): from memory, what follows weights that are read now."""
    near, far = fetched_ahead(simd.isa, tile.tokens, layout)
    prefetch, ahead = (simd.prefetch, near) if near else (simd.prefetch_far, far)

    @inlined
    def fetch(w: int, size: int) -> None:
        if ahead != 0:
            for line in range(0, size, 64):
                prefetch(w + ahead + line)

    return fetch
