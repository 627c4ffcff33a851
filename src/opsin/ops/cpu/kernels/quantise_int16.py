"""Rows of float32 to 16-bit integers in blocks of BLOCK, as `int16_sums` takes them.

Sums of products of two blocks must fit 32 bits. They do if each block's integers, as a vector, are no longer than the
root of that (Cauchy and Schwarz): then a block of like values keeps 12 bits a value, where worst cases added up would
leave 11, and one large value keeps all of its 15. What is not finite makes its block NaN; what is below 1e-30, 0.

Beside the integers goes the scale, f32 a block. Items are rows; a row of integers is whole blocks, zeros at its end.

Arguments: x, bytes a row of x, inputs, integers out, scales out.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import inlined
from opsin.ops.cpu.simd import Simd
from opsin.ops.layout import BLOCK

X, X_ROW, INPUTS, INTEGERS, SCALES = (8 * i for i in range(5))
LEAST = 1e-30
LARGEST = 1.0 / 32767
LONGEST = 1.0 / 46320  # the root of 2**31, less what rounding may add: half the root of as many values


def make(simd: Simd) -> Any:
    at, put_f32, round_block = simd.i64_at, simd.put_f32, rounding(simd)

    def quantise_int16(args: int, first: int, last: int, thread: int) -> int:
        inputs = at(args + INPUTS)
        blocks = (inputs + BLOCK - 1) // BLOCK
        for row in range(first, last):
            x = at(args + X) + row * at(args + X_ROW)
            for block in range(row * blocks, (row + 1) * blocks):
                k = BLOCK * (block - row * blocks)
                scale = round_block(x + 4 * k, inputs - k, at(args + INTEGERS) + 2 * BLOCK * block)
                put_f32(at(args + SCALES) + 4 * block, scale)
        return 0

    return quantise_int16


def rounding(simd: Simd) -> Any:
    """round_block(x, count, to) -> scale: float32 to int16 [BLOCK], zeros from `count` on."""
    load_part, store_i16, lanes = simd.load_part, simd.store_i16, simd.lanes
    magnitude, larger, largest = simd.magnitude, simd.larger, simd.largest
    zero, fma, mul, splat, total, root, rint = (
        simd.zero, simd.fma, simd.mul, simd.splat, simd.sum, simd.sqrt1, simd.rint,
    )  # fmt: skip

    @inlined
    def round_block(x: int, count: int, to: int) -> float:
        top = magnitude(zero())
        for i in range(0, BLOCK, lanes):
            top = larger(magnitude(load_part(x + 4 * i, count - i)), top)
        most, scale, inverse, squares = largest(top), 0.0, 0.0, zero()
        if not most < LEAST:
            one = splat(1.0 / most)
            for i in range(0, BLOCK, lanes):
                value = mul(load_part(x + 4 * i, count - i), one)
                squares = fma(value, value, squares)
            share = root(total(squares)) * LONGEST
            scale = most * (LARGEST if share < LARGEST else share)
            inverse = 1.0 / scale
        for i in range(0, BLOCK, lanes):
            store_i16(to + 2 * i, rint(mul(load_part(x + 4 * i, count - i), splat(inverse))))
        return scale

    return round_block
