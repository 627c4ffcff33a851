"""Rows of keys and values into their pages (see `attend` for how a page lies). Items are rows.

Arguments: k, bytes a row of k, v, bytes a row of v, slots (int32), keys of the layer, values, KV heads, width, pages.
A negative slot is skipped; a slot beyond the pages is an error.
"""

from __future__ import annotations

from typing import Any

from opsin.ops import PAGE
from opsin.ops.cpu import cells
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd
from opsin.ops.layout import SCALED, SHARED, VALUE_BITS

K, K_ROW, V, V_ROW, SLOTS, KEYS, VALUES, HEADS, WIDTH, COUNT = (8 * i for i in range(10))


def make(simd: Simd, kind: str) -> Any:
    at, i32 = simd.i64_at, simd.i32_at
    makers = {"q8_0": _eight, "q4_0": _four}
    put_key, put_value = makers[kind](simd) if kind in makers else _floats(simd, kind)
    bits, scaled = VALUE_BITS[kind], 1 if kind in SCALED else 0
    bad = cells.BAD_PAGE

    def store(args: int, first: int, last: int, thread: int) -> int:
        heads, width = at(args + HEADS), at(args + WIDTH)
        size = width * PAGE * bits // 8 + scaled * 2 * (width // SHARED) * PAGE
        for row in range(first, last):
            slot = i32(at(args + SLOTS) + 4 * row)
            if slot >= at(args + COUNT) * PAGE:
                return bad
            if slot < 0:
                continue
            for head in range(heads):
                place = ((slot // PAGE) * heads + head) * size
                k = at(args + K) + row * at(args + K_ROW) + head * width * 4
                v = at(args + V) + row * at(args + V_ROW) + head * width * 4
                put_key(k, at(args + KEYS) + place, slot % PAGE, width)
                put_value(v, at(args + VALUES) + place, slot % PAGE, width)
        return 0

    return store


def _floats(simd: Simd, kind: str) -> Any:
    f32_at = simd.f32_at
    put, size = (simd.put_f32, 4) if kind == "f32" else (simd.put_f16, 2)

    @jit
    def put_key(k: int, page: int, place: int, width: int) -> None:
        for i in range(width):
            put(page + (i * PAGE + place) * size, f32_at(k + 4 * i))

    @jit
    def put_value(v: int, page: int, place: int, width: int) -> None:
        for i in range(width):
            put(page + (place * width + i) * size, f32_at(v + 4 * i))

    return put_key, put_value


def _eight(simd: Simd) -> Any:
    """Groups of SHARED values of one row share a scale, its largest magnitude / 127."""
    f32_at, put_f16, put_i8, rint, f16_at = simd.f32_at, simd.put_f16, simd.put_i8, simd.rint1, simd.f16_at

    @jit
    def put_group(x: int, to: int, stride: int, scale: int) -> None:
        largest = 0.0
        for i in range(SHARED):
            size = abs(f32_at(x + 4 * i))
            if largest == largest and not size <= largest:  # a NaN gets in, and stays
                largest = size
        put_f16(scale, largest / 127.0)
        step = f16_at(scale)  # quantise for the scale as it is stored
        inverse = 1.0 / step if step > 0.0 else 0.0
        for i in range(SHARED):
            put_i8(to + i * stride, int(min(max(rint(f32_at(x + 4 * i) * inverse), -127.0), 127.0)))

    @jit
    def put_key(k: int, page: int, place: int, width: int) -> None:
        for g in range(width // SHARED):
            scale = page + width * PAGE + (g * PAGE + place) * 2
            put_group(k + 4 * SHARED * g, page + g * SHARED * PAGE + place, PAGE, scale)

    @jit
    def put_value(v: int, page: int, place: int, width: int) -> None:
        for g in range(width // SHARED):
            scale = page + width * PAGE + (place * (width // SHARED) + g) * 2
            put_group(v + 4 * SHARED * g, page + place * width + g * SHARED, 1, scale)

    return put_key, put_value


def _four(simd: Simd) -> Any:
    """The same in 4 bits: the scale is the value of the largest magnitude / -8, as in Q4_0, so that it is met."""
    f32_at, put_f16, put_i8, rint, f16_at = simd.f32_at, simd.put_f16, simd.put_i8, simd.rint1, simd.f16_at

    @jit
    def inverse_of(x: int, scale: int) -> float:
        """1 / the scale of the values at x, which is stored."""
        largest, extreme = 0.0, 0.0
        for i in range(SHARED):
            value = f32_at(x + 4 * i)
            if largest == largest and not abs(value) <= largest:  # a NaN gets in, and stays
                largest, extreme = abs(value), value
        put_f16(scale, extreme / -8.0)
        step = f16_at(scale)
        return 1.0 / step if abs(step) > 0.0 else 0.0

    @jit
    def four(x: int, inverse: float) -> int:
        return int(min(max(rint(f32_at(x) * inverse), -8.0), 7.0)) + 8

    @jit
    def put_key(k: int, page: int, place: int, width: int) -> None:
        for g in range(width // SHARED):
            inverse = inverse_of(k + 4 * SHARED * g, page + width * PAGE // 2 + (g * PAGE + place) * 2)
            for i in range(g * SHARED, (g + 1) * SHARED, 2):
                both = four(k + 4 * i, inverse) + 16 * four(k + 4 * i + 4, inverse)
                put_i8(page + i // 2 * PAGE + place, both)

    @jit
    def put_value(v: int, page: int, place: int, width: int) -> None:
        scales = page + width * PAGE // 2 + place * (width // SHARED) * 2
        for g in range(0, width // SHARED, 2):
            low, high = v + 4 * SHARED * g, v + 4 * SHARED * (g + 1)
            first, second = inverse_of(low, scales + 2 * g), inverse_of(high, scales + 2 * g + 2)
            for i in range(SHARED):
                both = four(low + 4 * i, first) + 16 * four(high + 4 * i, second)
                put_i8(page + place * width // 2 + g // 2 * SHARED + i, both)

    return put_key, put_value
