"""Rotary position embedding: tables of cosines and sines, and the rotation. Items are rows.

Arguments of the table: positions (int32), bytes a row of them, frequencies (f32), axis of each pair (int32) or 0,
pairs, scale (f32 bits), out ([row][2][pairs]), growth (f32) or 0, how many numbers it has, positions for each of them
(at least 1).
Arguments of the rotation: x, bytes a row of x, table, bytes a row of it, out, bytes a row of out, heads, width, pairs.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

(POSITIONS, POSITIONS_ROW, FREQUENCIES, AXIS, TABLE_PAIRS, SCALE, TABLE_OUT, GROWTH, GROWTH_COUNT,
 EVERY) = (8 * i for i in range(10))  # fmt: skip
X, X_ROW, TABLE, TABLE_ROW, OUT, OUT_ROW, HEADS, WIDTH, PAIRS = (8 * i for i in range(9))


def make(simd: Simd, part: str, pairing: str = "", axes: bool = False, grows: bool = False) -> Any:
    return _table(simd, axes, grows) if part == "table" else _rotate(simd, pairing)


def _table(simd: Simd, axes: bool, grows: bool) -> Any:
    at, i32, f32_at, put = simd.i64_at, simd.i32_at, simd.f32_at, simd.put_f32
    sine = _sine()

    def rope_table(args: int, first: int, last: int, thread: int) -> int:
        pairs = at(args + TABLE_PAIRS)
        scale = f32_at(args + SCALE)
        for row in range(first, last):
            places = at(args + POSITIONS) + row * at(args + POSITIONS_ROW)
            out = at(args + TABLE_OUT) + row * 8 * pairs
            grown = 1.0
            if grows:
                step = max(0, min(at(args + GROWTH_COUNT) - 1, i32(places) // at(args + EVERY)))
                grown *= f32_at(at(args + GROWTH) + 4 * step)
            for i in range(pairs):
                place = places
                if axes:
                    place += 4 * i32(at(args + AXIS) + 4 * i)
                angle = float(i32(place)) * f32_at(at(args + FREQUENCIES) + 4 * i)
                put(out + 4 * i, sine(angle + 1.5707963267948966) * scale * grown)
                put(out + 4 * (pairs + i), sine(angle) * scale * grown)
        return 0

    return rope_table


def _sine() -> Any:
    """sin in float64 for |x| below 1e7: pi is subtracted in two parts (Cody and Waite 1980), then a Taylor sum."""

    @jit
    def sine(x: float) -> float:
        n = int(x * 0.3183098861837907 + (0.5 if x >= 0 else -0.5))
        r = (x - n * 3.141592653589793) - n * 1.2246467991473532e-16
        z = r * r
        p = -7.647163731819816e-13
        p = p * z + 1.605904383682161e-10
        p = p * z - 2.505210838544172e-08
        p = p * z + 2.755731922398589e-06
        p = p * z - 1.984126984126984e-04
        p = p * z + 8.333333333333333e-03
        p = p * z - 1.6666666666666666e-01
        s = r + r * z * p
        return -s if n & 1 else s

    return sine


def _rotate(simd: Simd, pairing: str) -> Any:
    at = simd.i64_at
    turn = {"neighbours": _neighbours, "halves": _halves, "quarters": _quarters}[pairing](simd)
    load, store, lanes = simd.load_part, simd.store_part, simd.lanes

    def rope(args: int, first: int, last: int, thread: int) -> int:
        heads, width, pairs = at(args + HEADS), at(args + WIDTH), at(args + PAIRS)
        for row in range(first, last):
            table = at(args + TABLE) + row * at(args + TABLE_ROW)
            x, out = at(args + X) + row * at(args + X_ROW), at(args + OUT) + row * at(args + OUT_ROW)
            for _ in range(heads):
                turn(x, out, table, table + 4 * pairs, pairs)
                for i in range(2 * pairs, width, lanes):
                    store(out + 4 * i, load(x + 4 * i, width - i), width - i)
                x += 4 * width
                out += 4 * width
        return 0

    return rope


def _halves(simd: Simd) -> Any:
    load, store, lanes, fma, mul, sub = simd.load_part, simd.store_part, simd.lanes, simd.fma, simd.mul, simd.sub
    zero = simd.zero

    @jit
    def turn(x: int, out: int, cos: int, sin: int, pairs: int) -> None:
        for i in range(0, pairs, lanes):
            n = pairs - i
            a, b = load(x + 4 * i, n), load(x + 4 * (pairs + i), n)
            c, s = load(cos + 4 * i, n), load(sin + 4 * i, n)
            store(out + 4 * i, fma(a, c, sub(zero(), mul(b, s))), n)
            store(out + 4 * (pairs + i), fma(b, c, mul(a, s)), n)

    return turn


def _quarters(simd: Simd) -> Any:
    """Halves of each half, of which the first turns by the first half of the table."""
    halves = _halves(simd)

    @jit
    def turn(x: int, out: int, cos: int, sin: int, pairs: int) -> None:
        half = pairs // 2
        halves(x, out, cos, sin, half)
        halves(x + 4 * pairs, out + 4 * pairs, cos + 4 * half, sin + 4 * half, half)

    return turn


def _neighbours(simd: Simd) -> Any:
    load, store, lanes, fma, mul = simd.load, simd.store, simd.lanes, simd.fma, simd.mul
    twice, signed, swap = simd.load_twice, simd.load_twice_signed, simd.swap_pairs
    f32_at, put, fma1 = simd.f32_at, simd.put_f32, simd.fma1

    @jit
    def turn(x: int, out: int, cos: int, sin: int, pairs: int) -> None:
        whole = 2 * pairs // lanes * lanes
        for i in range(0, whole, lanes):
            v = load(x + 4 * i)
            store(out + 4 * i, fma(v, twice(cos + 2 * i), mul(swap(v), signed(sin + 2 * i))))
        for i in range(whole // 2, pairs):
            a, b = f32_at(x + 8 * i), f32_at(x + 8 * i + 4)
            c, s = f32_at(cos + 4 * i), f32_at(sin + 4 * i)
            put(out + 8 * i, fma1(a, c, -(b * s)))
            put(out + 8 * i + 4, fma1(b, c, a * s))

    return turn
