"""Linear layers over packed weights: y[t, n] = sum over k of w[n, k] * x[t, k] (+ bias[n]) (+ residual[t, n]).

With an activation, it is taken of the sum and the bias; there is no residual then.

Items are strips of STRIP outputs. For quantised weights x comes as int8 in groups of 32 (see `quantise`), and a
result is a float32 sum over groups in order of k; for float weights it is a sum over k in order. One row takes
the same sums in the same order as many, so a row's result does not depend on its company.

Arguments (int64 words): weights, x, bytes a row of x, scales, bytes a row of scales, sums, lifts, y, bytes a row
of y, outputs, records (or inputs, for floats), address of the row count, bias or 0, residual or 0, bytes a row of it,
scratch or 0, bytes of scratch a thread, steps of four inputs a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.pointwise import function
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.repeated import Repeated
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import (
    AHEAD,
    FEW_ROWS,
    REPEATED_BYTES,
    REPEATED_GROUPS,
    REPEATED_RECORDS,
    REPEATED_ROWS,
    REPEATED_SCALE,
    fetched_ahead,
    linear_scratch,
)
from opsin.ops.cpu.unpacked import Unpacked
from opsin.ops.layout import FLOAT_BYTES, RECORD, RECORDS, STRIP, Layout

(W, X, X_ROW, SCALES, SCALES_ROW, SUMS, LIFTS, Y, Y_ROW, OUTPUTS, RECORDS_WORD, ROWS, BIAS, RESIDUAL, RESIDUAL_ROW,
 SCRATCH, SCRATCH_BYTES, STEPS) = (8 * i for i in range(18))  # fmt: skip


def tile_shapes(simd: Simd, kind: str) -> tuple[tuple[int, int], ...]:
    """(vectors, tokens) of the tiles for one row, for two and for more: what fits the registers."""
    few = min(STRIP // simd.lanes, 4)
    if simd.lanes == 16:
        return (few, 1), (few, 2), (few, 4), (few, 6 if kind == "planes" else 8)
    return (few, 1), (few, 2), (1, 4) if kind == "planes" else (2, 5)


def make(
    simd: Simd, kind: str, bits: int = 0, group: int = 32, zero: int = 0, minimum: bool = False, codes: bool = False,
    paired: bool = False, table: tuple[int, ...] = (), activation: str = "",
) -> Any:  # fmt: skip
    layout = Layout(kind, bits, group, zero, minimum, codes, paired, table)
    apart, at = linear_scratch(simd.isa.dot, layout, RECORD) > 0, simd.i64_at
    shapes = [(v, t) for v, t in tile_shapes(simd, kind) if t <= 2 or not apart]
    in_tiles = _in_tiles(
        simd, layout, [Dots(simd, vectors=v, tokens=t, bits=bits, zero=zero, table=table) for v, t in shapes]
    )
    activate, active = activating(simd, activation or "copy"), activation != ""
    unpack, take = _unpacked(simd, layout) if apart else (_nothing, _nothing)
    few = _few(simd, layout) if apart else _nothing

    def linear(args: int, first: int, last: int, thread: int) -> int:
        rows, outputs = at(at(args + ROWS)), at(args + OUTPUTS)
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        if apart and 2 < rows <= FEW_ROWS:
            few(args, first, last, scratch)
        for strip in range(first, last):
            columns = min(STRIP, outputs - strip * STRIP)
            if apart and rows > FEW_ROWS:
                unpack(args, strip, scratch)
                take(args, strip, rows, columns, scratch)
            elif not apart or rows <= 2:
                in_tiles(args, strip, rows, columns)
            if active:  # not of each tile at once: what was just stored in part cannot be read again without waiting
                for t in range(rows):
                    activate(args, at(args + Y) + t * at(args + Y_ROW) + 4 * STRIP * strip, columns)
        return 0

    return linear


def _in_tiles(simd: Simd, layout: Layout, tiles: list[Dots]) -> Any:
    """All rows of a strip: the smallest tile that holds those that are left, or else the largest."""
    sweeps, middle, most = [_sweep(simd, tile, layout) for tile in tiles], tiles[-2].tokens, tiles[-1].tokens
    one, two, few, many = sweeps[0], sweeps[1], sweeps[-2] if middle > 2 else _nothing, sweeps[-1]

    @jit
    def in_tiles(args: int, strip: int, rows: int, columns: int) -> None:
        row = 0
        while row < rows:
            left = rows - row
            if left == 1:
                one(args, strip, row, 1, columns)
                row += 1
            elif left == 2 or most == 2:
                two(args, strip, row, 2, columns)
                row += 2
            elif left <= middle:
                few(args, strip, row, left, columns)
                row += middle
            else:
                many(args, strip, row, left, columns)
                row += most

    return in_tiles


def _fetching(simd: Simd, tile: Dots, layout: Layout) -> Any:
    """fetch(w, size): from memory, what follows weights that are read now."""
    near, far = fetched_ahead(simd.isa, tile.tokens, layout)
    prefetch, ahead = (simd.prefetch, near) if near else (simd.prefetch_far, far)

    @inlined
    def fetch(w: int, size: int) -> None:
        if ahead != 0:
            for line in range(0, size, 64):
                prefetch(w + ahead + line)

    return fetch


def _sweep(simd: Simd, tile: Dots, layout: Layout) -> Any:
    """All inputs of one strip times the tile's rows, and the results written out."""
    total = _planes(simd, tile, layout) if layout.kind == "planes" else _floats(simd, tile, layout)
    parts, finish = STRIP // (tile.vectors * simd.lanes), _finish(simd, tile)

    @jit
    def sweep(args: int, strip: int, row: int, left: int, columns: int) -> None:
        for part in range(parts):
            finish(args, total(args, strip, part, row, left), strip, part, row, left, columns)

    return sweep


def _finish(simd: Simd, tile: Dots) -> Any:
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


def activating(simd: Simd, name: str) -> Callable[..., Any]:
    """Values that were just written, in place: they are still near."""
    f, load, store, lanes, zero = function(simd, name), simd.load_part, simd.store_part, simd.lanes, simd.zero

    @jit
    def activate(args: int, y: int, width: int) -> None:
        for i in range(0, width, lanes):
            store(y + 4 * i, f(args, load(y + 4 * i, width - i), zero()), width - i)

    return activate


def _planes(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    """Sums over records; with codes, over blocks of RECORDS records that share factors."""
    at, zeros = simd.i64_at, tile.zeros
    add_record = _record(simd, tile, layout)
    wide, per = tile.vectors * simd.lanes, 128 // layout.group
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, factors, ones, fetch = layout.record_bytes, tile.factors, tile.ones, _fetching(simd, tile, layout)
    stretch = RECORDS if codes else 1 << 30

    @jit
    def total(args: int, strip: int, part: int, row: int, left: int) -> Any:
        records, x_row, s_row = at(args + RECORDS_WORD), at(args + X_ROW), at(args + SCALES_ROW)
        w = at(args + W) + strip * (records * record + records // RECORDS * factor_bytes)
        x, s = at(args + X) + row * x_row, at(args + SCALES) + row * s_row
        sum_row = s_row * (per // 4)
        sums, lifts = at(args + SUMS) + row * sum_row, at(args + LIFTS) + row * sum_row
        acc, done, ahead = zeros(), 0, row + part == 0
        while done < records:
            scale_of, lift_of = ones(), ones()
            if codes:
                scale_of = factors(w + part * wide * 2)
                if ahead:
                    fetch(w, factor_bytes)
                if minimum:
                    lift_of = factors(w + 2 * STRIP + part * wide * 2)
                w += factor_bytes
            for _ in range(min(stretch, records - done)):
                head, plane = w + part * wide * size, w + part * wide * 4
                if ahead:
                    fetch(w, record)
                acc = add_record(acc, scale_of, lift_of, head, plane, x, x_row, left, s, s_row, sums, lifts, sum_row)
                w += record
                x += RECORD
                s += 4
                sums += per
                lifts += per
            done += stretch
        return acc

    return total


def _record(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
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


def _nothing(*arguments: int) -> None:
    """Stands where a kernel has no unpacked weights."""


def _unpacked(simd: Simd, layout: Layout) -> tuple[Any, Any]:
    """unpack(args, strip, scratch), and take(args, strip, rows, columns, scratch): all rows of a strip."""
    ops = Unpacked(simd, layout, vectors=2, tokens=4)
    at, total, finish, unpack_record = simd.i64_at, _unpacked_total(simd, ops), _finish(simd, ops.tile), _unpack(ops)
    wide, parts, tokens, factors, ones = ops.wide, STRIP // ops.wide, ops.tokens, ops.tile.factors, ops.tile.ones
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, there, stretch = layout.record_bytes, ops.record_bytes, RECORDS if layout.codes else 1 << 30

    @jit
    def unpack(args: int, strip: int, to: int) -> None:
        records = at(args + RECORDS_WORD)
        for part in range(parts):
            w, done = at(args + W) + strip * (records * record + records // RECORDS * factor_bytes), 0
            while done < records:
                scale_of, lift_of = ones(), ones()
                if codes:
                    scale_of = factors(w + part * wide * 2)
                    if minimum:
                        lift_of = factors(w + 2 * STRIP + part * wide * 2)
                    w += factor_bytes
                for _ in range(min(stretch, records - done)):
                    unpack_record(w + part * wide * size, w + part * wide * 4, scale_of, lift_of, to)
                    w += record
                    to += there
                done += stretch

    @jit
    def take(args: int, strip: int, rows: int, columns: int, scratch: int) -> None:
        bytes_a_part = at(args + RECORDS_WORD) * there
        for row in range(0, rows, tokens):
            for part in range(parts):
                acc = total(args, scratch + part * bytes_a_part, row, rows - row)
                finish(args, acc, strip, part, row, rows - row, columns)

    return unpack, take


def _few(simd: Simd, layout: Layout) -> Any:
    """few(args, first, last, scratch): some strips times a few rows, repeated once for all of them."""
    at, record = simd.i64_at, REPEATED_ROWS * REPEATED_BYTES
    half, whole = (Repeated(simd, layout, tokens=n) for n in (REPEATED_ROWS // 2, REPEATED_ROWS))
    repeat, per, four, eight = whole.repeat, RECORD // layout.group, _repeated(half), _repeated(whole)
    sums_bytes, more_of = 4 * STRIP * REPEATED_ROWS, LIFTS if layout.minimum else SUMS

    @jit
    def write(args: int, row: int, left: int, tokens: int, start: int, count: int, to: int) -> None:
        for t in range(tokens):  # the last row stands for those that there are not
            r = row + min(t, left - 1)
            x, s = at(args + X) + r * at(args + X_ROW), at(args + SCALES) + r * at(args + SCALES_ROW)
            more = at(args + more_of) + r * at(args + SCALES_ROW) * per
            for k in range(start, start + count):
                place = to + (k - start) * record + t * REPEATED_BYTES
                repeat(x + RECORD * k, s + 4 * k, more + 4 * per * k, place)

    @jit
    def few(args: int, first: int, last: int, scratch: int) -> None:
        rows, records = at(at(args + ROWS)), at(args + RECORDS_WORD)
        for row in range(0, rows, REPEATED_ROWS):
            left = rows - row
            tokens = REPEATED_ROWS if left > REPEATED_ROWS // 2 else REPEATED_ROWS // 2
            for start in range(0, records, REPEATED_RECORDS):
                count = min(REPEATED_RECORDS, records - start)
                write(args, row, left, tokens, start, count, scratch + sums_bytes)
                for strip in range(first, last):
                    if tokens == REPEATED_ROWS:
                        eight(args, strip, row, left, start, count, scratch)
                    else:
                        four(args, strip, row, left, start, count, scratch)

    return few


def _repeated(ops: Repeated) -> Any:
    """Some records of a strip times repeated rows. Sums stand in scratch, between stretches of records in y."""
    simd, tile, lanes = ops.simd, ops.tile, ops.simd.lanes
    at, zeros, load, store, finish, add = simd.i64_at, tile.zeros, tile.load, tile.store, _finish(simd, tile), _add(ops)
    line, tokens = 4 * lanes, ops.tokens
    size = line * tokens

    @jit
    def sweep(args: int, strip: int, row: int, left: int, start: int, count: int, sums: int) -> None:
        y_row, columns = at(args + Y_ROW), min(STRIP, at(args + OUTPUTS) - strip * STRIP)
        y = at(args + Y) + row * y_row + 4 * STRIP * strip
        parts = (columns + lanes - 1) // lanes
        for part in range(parts):
            acc = zeros() if start == 0 else load(y + part * line, y_row, left, columns - part * lanes)
            store(acc, sums + part * size, line, tokens, lanes)
        add(args, strip, parts, start, count, sums)
        for part in range(parts):
            acc = load(sums + part * size, line, tokens, lanes)
            if start + count < at(args + RECORDS_WORD):
                store(acc, y + part * line, y_row, left, columns - part * lanes)
            else:
                finish(args, acc, strip, part, row, left, columns)

    return sweep


def _add(ops: Repeated) -> Any:
    """Products of a stretch of a strip's records, added to sums [parts of a strip][tokens][lanes]."""
    simd, tile, layout = ops.simd, ops.tile, ops.layout
    at, prefetch, load, store, factors, ones = (
        simd.i64_at, simd.prefetch, tile.load, tile.store, tile.factors, tile.ones,
    )  # fmt: skip
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, stretch = layout.record_bytes, RECORDS if layout.codes else 1 << 30
    lanes, tokens, add_record = simd.lanes, ops.tokens, _record(simd, tile, layout)
    line, tile_bytes, sums_bytes = 4 * simd.lanes, 4 * simd.lanes * ops.tokens, 4 * STRIP * REPEATED_ROWS

    @jit
    def add(args: int, strip: int, parts: int, start: int, count: int, sums: int) -> None:
        records = at(args + RECORDS_WORD)
        w = at(args + W) + strip * (records * record + records // RECORDS * factor_bytes)
        w += start * record + start // RECORDS * factor_bytes
        x, done = sums + sums_bytes, 0
        while done < count:
            shared = w
            for ahead in range(0, factor_bytes, 64):
                prefetch(w + AHEAD + ahead)
            w += factor_bytes
            for _ in range(min(stretch, count - done)):
                for ahead in range(0, record, 64):
                    prefetch(w + AHEAD + ahead)
                for part in range(parts):  # a count that LLVM does not know, so that it does not unroll them
                    place, numbers = sums + part * tile_bytes, w + part * lanes * size
                    scale_of, lift_of = ones(), ones()
                    if codes:
                        scale_of = factors(shared + part * lanes * 2)
                        if minimum:
                            lift_of = factors(shared + 2 * STRIP + part * lanes * 2)
                    acc = add_record(
                        load(place, line, tokens, lanes), scale_of, lift_of, numbers, w + part * line, x, 0, tokens,
                        x + REPEATED_SCALE, 0, x, x + REPEATED_GROUPS, 0,
                    )  # fmt: skip
                    store(acc, place, line, tokens, lanes)
                w += record
                x += REPEATED_ROWS * REPEATED_BYTES
            done += stretch

    return add


def _unpack(ops: Unpacked) -> Any:
    """One record of a tile's outputs."""
    layout, wide, groups, scale_bytes = ops.layout, ops.wide, ops.groups, ops.scale_bytes
    minimum, minima, half, head = layout.minimum, layout.minima_at, STRIP * layout.scale_size, layout.head_bytes
    scales_of, minima_of, bytes_of = ops.scales_of, ops.minima_of, ops.bytes_of
    first = scale_bytes * (2 if minimum else 1)

    @inlined
    def unpack(w: int, plane: int, scale_of: Any, lift_of: Any, to: int) -> None:
        for group in range(groups):
            scales_of(w + group * half, scale_of, to + 4 * wide * group)
            if minimum:
                minima_of(w + minima + group * half, lift_of, to + scale_bytes + 4 * wide * group)
        bytes_of(plane + head, to + first)

    return unpack


def _unpacked_total(simd: Simd, ops: Unpacked) -> Any:
    """Sums over the records of a part that was unpacked, in the order of `_planes`."""
    tile, at, wide, groups, record = ops.tile, simd.i64_at, ops.wide, ops.groups, ops.record_bytes
    minimum, scale_bytes, start, step, close = ops.layout.minimum, ops.scale_bytes, ops.start, ops.step, ops.close
    zeros, ones, scale, lift, first = tile.zeros, tile.ones, tile.scale["f32"], tile.lift["f32"], record - RECORD * wide

    @jit
    def total(args: int, w: int, row: int, left: int) -> Any:
        x_row, s_row, steps = at(args + X_ROW), at(args + SCALES_ROW), at(args + STEPS)
        x, s, sum_row = at(args + X) + row * x_row, at(args + SCALES) + row * s_row, s_row * groups
        sums, lifts, acc = at(args + SUMS) + row * sum_row, at(args + LIFTS) + row * sum_row, zeros()
        for _ in range(at(args + RECORDS_WORD)):
            numbers, weights = w, w + first
            for _ in range(groups):
                dots = start(sums, sum_row, left)
                for _ in range(steps):
                    dots = step(dots, weights, x, x_row, left)
                    weights += 4 * wide
                    x += 4
                acc = scale(acc, close(dots, sums, sum_row, left), ones(), numbers, s, s_row, left)
                if minimum:
                    acc = lift(acc, ones(), numbers + scale_bytes, lifts, sum_row, left)
                numbers += 4 * wide
                sums += 4
                lifts += 4
            s += 4
            w += record
        return acc

    return total


def _floats(simd: Simd, tile: Dots, layout: Layout) -> Callable[..., Any]:
    at, zeros, step, fetch = simd.i64_at, tile.zeros, tile.step[layout.kind], _fetching(simd, tile, layout)
    size = FLOAT_BYTES[layout.kind]
    wide = tile.vectors * simd.lanes

    @jit
    def total(args: int, strip: int, part: int, row: int, left: int) -> Any:
        inputs, x_row = at(args + RECORDS_WORD), at(args + X_ROW)
        w = at(args + W) + (strip * inputs * STRIP + part * wide) * size
        x = at(args + X) + row * x_row
        acc, ahead = zeros(), row + part == 0
        for _ in range(inputs):
            if ahead:
                fetch(w, STRIP * size)
            acc = step(acc, w, x, x_row, left)
            w += STRIP * size
            x += 4
        return acc

    return total
