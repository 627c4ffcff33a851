"""Whole rows: looked up in a packed table, taken by number, replaced, or averaged.

Arguments of embed: ids (int32), weights, outputs, inputs, out. Of take: rows (int32), x, bytes a row of x, width,
out, rows of x (address of the count). Of put: places (int32, negative where x stays), x, bytes a row of x, y, bytes a
row of y, width, out, rows of y (address of the count). Of overlay: x, bytes a row of x, addresses of rows that stand
instead (0: none), width, out. Of add: x (which it changes), bytes a row of x, addresses of rows that are added (0:
none), where in them in bytes, width, rows of x (address of the count). Of mean: x, bytes a row of x, rows that make
one, width, out. Items are rows of the result.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu import cells
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import Simd
from opsin.ops.layout import BLOCK, FLOAT_BYTES, PAIR_BYTES, PLANES, RECORD, RECORDS, STRIP, Layout

IDS, TABLE, OUTPUTS, INPUTS, OUT = (8 * i for i in range(5))
ROWS, X, X_ROW, WIDTH, TO, COUNT = (8 * i for i in range(6))
P_PLACES, P_X, P_X_ROW, P_Y, P_Y_ROW, P_WIDTH, P_OUT, P_COUNT = (8 * i for i in range(8))
O_X, O_ROW, O_TABLE, O_WIDTH, O_OUT = (8 * i for i in range(5))
D_X, D_ROW, D_TABLE, D_OFFSET, D_WIDTH, D_COUNT = (8 * i for i in range(6))
M_X, M_ROW, M_ROWS, M_WIDTH, M_OUT = (8 * i for i in range(5))
BAD_ID = cells.BAD_ID


def make(
    simd: Simd, part: str, kind: str = "", bits: int = 0, group: int = 32, zero: int = 0, minimum: bool = False,
    codes: bool = False, paired: bool = False, table: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    others = {"take": _take, "put": _put, "overlay": _overlay, "add": _add, "mean": _mean}
    if part in others:
        return others[part](simd)
    layout = Layout(kind, bits, group, zero, minimum, codes, paired, table)
    unpack = {"planes": _unpack_planes, "int16": _unpack_integers}.get(kind, _unpack_floats)
    return _embed(simd, unpack(simd, layout), layout)


def _embed(simd: Simd, unpack: Any, layout: Layout) -> Any:
    at, i32, strip_bytes = simd.i64_at, simd.i32_at, jit(layout.strip_bytes)

    def embed(args: int, first: int, last: int, thread: int) -> int:
        inputs = at(args + INPUTS)
        for row in range(first, last):
            number = i32(at(args + IDS) + 4 * row)
            if number < 0 or number >= at(args + OUTPUTS):
                return BAD_ID
            strip = at(args + TABLE) + number // STRIP * strip_bytes(inputs)
            unpack(strip, number % STRIP, inputs, at(args + OUT) + row * inputs * 4)
        return 0

    return embed


def _unpack_floats(simd: Simd, layout: Layout) -> Any:
    read = {"f32": simd.f32_at, "f16": simd.f16_at, "bf16": simd.bf16_at}[layout.kind]
    put, size = simd.put_f32, FLOAT_BYTES[layout.kind]

    @jit
    def unpack(strip: int, place: int, inputs: int, out: int) -> None:
        for i in range(inputs):
            put(out + 4 * i, read(strip + (i * STRIP + place) * size))

    return unpack


def _unpack_integers(simd: Simd, layout: Layout) -> Any:
    f32, i16, put = simd.f32_at, simd.i16_at, simd.put_f32

    @jit
    def unpack(strip: int, place: int, inputs: int, out: int) -> None:
        line = strip + 4 * place
        for k in range(0, inputs, BLOCK):
            scale = f32(line)
            for i in range(k, min(k + BLOCK, inputs)):
                if i % 2 == 0:
                    line += PAIR_BYTES
                put(out + 4 * i, scale * float(i16(line + 2 * (i % 2))))
            line += PAIR_BYTES

    return unpack


def _unpack_planes(simd: Simd, layout: Layout) -> Any:
    u8, f16, put, fma = simd.u8_at, simd.f16_at, simd.put_f32, simd.fma1
    planes = PLANES[layout.bits]
    first = planes[0]
    second = planes[1] if len(planes) > 1 else 0
    record, head, minima, group = layout.record_bytes, layout.head_bytes, layout.minima_at, layout.group
    zero, minimum, codes, factors = layout.zero, layout.minimum, layout.codes, layout.factor_bytes
    i8, size, paired = simd.i8_at, layout.scale_size, layout.paired
    block = RECORDS * record + factors
    uneven = bool(layout.table)
    first_half, second_half = (int.from_bytes(layout.table[i : i + 8], "little", signed=True) for i in (0, 8))

    @jit
    def number(at: int, factor: int, nibble: int) -> float:
        """A scale or minimum: f16, or a whole number times its factor, which may be a nibble."""
        if paired:
            return float((u8(at) >> (4 * nibble)) & 15) * f16(factor)
        return float(i8(at)) * f16(factor) if codes else f16(at)

    @jit
    def field(plane: int, width: int, step: int, i: int, place: int) -> int:
        """Value i of a step in a plane of `width` bits."""
        steps = 8 // width
        byte = u8(plane + (step // steps * STRIP + place) * 4 + i)
        return (byte >> (step % steps * width)) & ((1 << width) - 1)

    @jit
    def unpack(strip: int, place: int, inputs: int, out: int) -> None:
        for r in range(inputs // RECORD):
            factor = strip + r // RECORDS * block + 2 * place
            at = strip + r * record
            if codes:
                at = strip + r // RECORDS * block + factors + r % RECORDS * record
            plane = at + head
            for k in range(RECORD):
                q = field(plane, first, k // 4, k % 4, place)
                if second != 0:
                    q |= field(plane + first * 4 * STRIP, second, k // 4, k % 4, place) << first
                if uneven:
                    q = ((first_half if q < 8 else second_half) >> (8 * (q & 7))) & 255
                scale = at + (k // group * STRIP + place) * size
                low = number(scale + minima, factor + 2 * STRIP, 1) if minimum else 0.0
                put(out + 4 * (r * RECORD + k), fma(number(scale, factor, 0), float(q - zero), low))

    return unpack


def _copying(simd: Simd) -> Any:
    """copy(x, width, out): so many values."""
    load, store, lanes = simd.load_part, simd.store_part, simd.lanes

    @inlined
    def copy(x: int, width: int, out: int) -> None:
        for i in range(0, width, lanes):
            store(out + 4 * i, load(x + 4 * i, width - i), width - i)

    return copy


def _take(simd: Simd) -> Any:
    at, i32, copy = simd.i64_at, simd.i32_at, _copying(simd)

    def take(args: int, first: int, last: int, thread: int) -> int:
        width = at(args + WIDTH)
        for row in range(first, last):
            number = i32(at(args + ROWS) + 4 * row)
            if number < 0 or number >= at(at(args + COUNT)):
                return BAD_ID
            x, out = at(args + X) + number * at(args + X_ROW), at(args + TO) + row * width * 4
            copy(x, width, out)
        return 0

    return take


def _put(simd: Simd) -> Any:
    at, i32, copy = simd.i64_at, simd.i32_at, _copying(simd)

    def put(args: int, first: int, last: int, thread: int) -> int:
        width = at(args + P_WIDTH)
        for row in range(first, last):
            number = i32(at(args + P_PLACES) + 4 * row)
            if number >= at(at(args + P_COUNT)):
                return BAD_ID
            x, out = at(args + P_X) + row * at(args + P_X_ROW), at(args + P_OUT) + row * width * 4
            if number >= 0:
                x = at(args + P_Y) + number * at(args + P_Y_ROW)
            copy(x, width, out)
        return 0

    return put


def _overlay(simd: Simd) -> Any:
    at, copy = simd.i64_at, _copying(simd)

    def overlay(args: int, first: int, last: int, thread: int) -> int:
        width = at(args + O_WIDTH)
        for row in range(first, last):
            x, out = at(args + O_X) + row * at(args + O_ROW), at(args + O_OUT) + row * width * 4
            other = at(at(args + O_TABLE) + 8 * row)
            if other != 0:
                x = other
            copy(x, width, out)
        return 0

    return overlay


def _add(simd: Simd) -> Any:
    at, load, store, lanes, add = simd.i64_at, simd.load_part, simd.store_part, simd.lanes, simd.add

    def add_rows(args: int, first: int, last: int, thread: int) -> int:
        width = at(args + D_WIDTH)
        for row in range(first, min(last, at(at(args + D_COUNT)))):
            other = at(at(args + D_TABLE) + 8 * row)
            if other != 0:
                x, other = at(args + D_X) + row * at(args + D_ROW), other + at(args + D_OFFSET)
                for i in range(0, width, lanes):
                    store(x + 4 * i, add(load(x + 4 * i, width - i), load(other + 4 * i, width - i)), width - i)
        return 0

    return add_rows


def _mean(simd: Simd) -> Any:
    at, load, store, lanes = simd.i64_at, simd.load_part, simd.store_part, simd.lanes
    add, mul, splat, zero = simd.add, simd.mul, simd.splat, simd.zero

    def mean(args: int, first: int, last: int, thread: int) -> int:
        width, k, stride = at(args + M_WIDTH), at(args + M_ROWS), at(args + M_ROW)
        share = splat(1.0 / k)
        for row in range(first, last):
            x, out = at(args + M_X) + row * k * stride, at(args + M_OUT) + row * width * 4
            for i in range(0, width, lanes):
                total = zero()
                for r in range(k):
                    total = add(total, load(x + r * stride + 4 * i, width - i))
                store(out + 4 * i, mul(total, share), width - i)
        return 0

    return mean
