"""Rows of float32 to int8 in groups of 32, as the linear kernels take them.

A group's scale is its largest magnitude / 127. Beside the bytes go the scale (f32 a group) and, for each `group`
of 16 or 32, the sum of the bytes times -zero (i32), which undoes the bias of weights, and the sum times the scale (f32),
which weights with a minimum need. Where products of bytes are added up in 16 bits (`maddubs`), two sums as they are
stand in the first one's place: of the first and second byte of each four, and of the third and fourth. Items are rows.

Arguments: x, bytes a row of x, inputs (a multiple of 32), bytes out, scales out, sums out, lifts out.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from opsin.ops.cpu.simd import Simd, operation

X, X_ROW, INPUTS, BYTES, SCALES, SUMS, LIFTS = (8 * i for i in range(7))


def make(simd: Simd, group: int, zero: int = 0) -> Any:
    at, load, absolute, maximum, peak, zeros = simd.i64_at, simd.load, simd.abs, simd.maximum, simd.peak, simd.zero
    splat, mul, rint, store_i8, total, add = simd.splat, simd.mul, simd.rint, simd.store_i8, simd.sum, simd.add
    put_f32, put_i32 = simd.put_f32, simd.put_i32
    lanes, parts, pairs = simd.lanes, 32 // group, simd.isa.dot == "maddubs"
    late = operation(simd.F, (), lambda b: ir.Constant(simd.F.ir, [float(i % 4 > 1) for i in range(lanes)]))

    def quantise(args: int, first: int, last: int, thread: int) -> int:
        inputs = at(args + INPUTS)
        groups = inputs // 32
        for row in range(first, last):
            x = at(args + X) + row * at(args + X_ROW)
            q = at(args + BYTES) + row * inputs
            scales = at(args + SCALES) + row * groups * 4
            sums, lifts = (at(args + SUMS) + row * groups * parts * 4), (at(args + LIFTS) + row * groups * parts * 4)
            for g in range(groups):
                top = zeros()
                for i in range(0, 32, lanes):
                    top = maximum(absolute(load(x + 4 * (g * 32 + i))), top)
                largest = peak(top)
                scale = largest / 127.0
                inverse = splat(127.0 / largest if largest > 0.0 else 0.0)
                put_f32(scales + 4 * g, scale)
                for p in range(parts):
                    acc = zeros()
                    for i in range(p * group, (p + 1) * group, lanes):
                        v = rint(mul(load(x + 4 * (g * 32 + i)), inverse))
                        store_i8(q + g * 32 + i, v)
                        acc = add(acc, v)
                    byte_sum = total(acc)
                    number = int(byte_sum)
                    if pairs:
                        second = int(total(mul(acc, late())))
                        number = (second << 16) + ((number - second) & 0xFFFF)
                    else:
                        number *= -zero
                    put_i32(sums + 4 * (g * parts + p), number)
                    put_f32(lifts + 4 * (g * parts + p), byte_sum * scale)
        return 0

    return quantise
