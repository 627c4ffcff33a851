"""Linear layers of more than two rows for CPUs that have `maddubs` and nothing better, to the bits of `linear_sums`.

Up to FEW_ROWS rows stand repeated in all lanes of memory (see `repeated.py`); for more, a strip's weights are unpacked
once (see `unpacked.py`).
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.linear_sums import (
    LIFTS,
    OUTPUTS,
    RECORDS_WORD,
    ROWS,
    SCALES,
    SCALES_ROW,
    STEPS,
    SUMS,
    X_ROW,
    Y_ROW,
    W,
    X,
    Y,
    fetching,
    finish_of,
    record_of,
)
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.repeated import Repeated
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import (
    REPEATED_BYTES,
    REPEATED_GROUPS,
    REPEATED_RECORDS,
    REPEATED_ROWS,
    REPEATED_SCALE,
)
from opsin.ops.cpu.unpacked import Unpacked
from opsin.ops.layout import RECORD, STRIP, Layout


def unpacked(simd: Simd, layout: Layout) -> tuple[Any, Any]:
    """unpack(args, strip, scratch), and take(args, strip, rows, columns, scratch): all rows of a strip."""
    ops = Unpacked(simd, layout, vectors=2, tokens=4)
    at, total, finish, unpack_record = simd.i64_at, _unpacked_total(simd, ops), finish_of(simd, ops.tile), _unpack(ops)
    wide, parts, tokens, factors, ones = ops.wide, STRIP // ops.wide, ops.tokens, ops.tile.factors, ops.tile.ones
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, there, strip_bytes = layout.record_bytes, ops.record_bytes, jit(layout.strip_bytes)
    block = layout.block_records

    @jit
    def unpack(args: int, strip: int, to: int) -> None:
        records = at(args + RECORDS_WORD)
        for part in range(parts):
            w, done = at(args + W) + strip * strip_bytes(RECORD * records), 0
            while done < records:
                scale_of, lift_of = ones(), ones()
                if codes:
                    scale_of = factors(w + part * wide * 2)
                    if minimum:
                        lift_of = factors(w + 2 * STRIP + part * wide * 2)
                    w += factor_bytes
                for _ in range(min(block, records - done)):
                    unpack_record(w + part * wide * size, w + part * wide * 4, scale_of, lift_of, to)
                    w += record
                    to += there
                done += block

    @jit
    def take(args: int, strip: int, rows: int, columns: int, scratch: int) -> None:
        bytes_a_part = at(args + RECORDS_WORD) * there
        for row in range(0, rows, tokens):
            for part in range(parts):
                acc = total(args, scratch + part * bytes_a_part, row, rows - row)
                finish(args, acc, strip, part, row, rows - row, columns)

    return unpack, take


def few_of(simd: Simd, layout: Layout) -> Any:
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
    at, zeros, load, store, finish, add = (
        simd.i64_at,
        tile.zeros,
        tile.load,
        tile.store,
        finish_of(simd, tile),
        _add(ops),
    )
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
    at, load, store, factors, ones = simd.i64_at, tile.load, tile.store, tile.factors, tile.ones
    codes, minimum, size, factor_bytes = layout.codes, layout.minimum, layout.scale_size, layout.factor_bytes
    record, block, strip_bytes = layout.record_bytes, layout.block_records, jit(layout.strip_bytes)
    lanes, tokens = simd.lanes, ops.tokens
    add_record, fetch = record_of(simd, tile, layout), fetching(simd, tile, layout)
    line, tile_bytes, sums_bytes = 4 * simd.lanes, 4 * simd.lanes * ops.tokens, 4 * STRIP * REPEATED_ROWS

    @jit
    def add(args: int, strip: int, parts: int, start: int, count: int, sums: int) -> None:
        records = at(args + RECORDS_WORD)
        w = at(args + W) + strip * strip_bytes(RECORD * records) + strip_bytes(RECORD * start)
        x, done = sums + sums_bytes, 0
        while done < count:
            shared = w
            fetch(w, factor_bytes)
            w += factor_bytes
            for _ in range(min(block, count - done)):
                fetch(w, record)
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
            done += block

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
    """Sums over the records of a part that was unpacked, in the order of `linear_sums`."""
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
