"""Queries, keys and values as integers of 8 or 16 bits, laid out as `attend_integers` reads them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.kernels.quantise_int16 import LARGEST, LEAST, LONGEST
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.kernels.softmax import LOWEST
from opsin.ops.cpu.simd import I32, I64, Simd, call, constant, operation, store
from opsin.ops.cpu.tiles import INT_ROWS

VALUES = {8: 127, 16: 4095}  # the largest
TOGETHER = 4  # keys, or columns of values, whose sums stand in registers at once


def quantising(simd: Simd, wide: int, bits: int) -> tuple[Any, Any, Any, Any]:
    """What finds the mean of keys, and what rounds keys, values, and a panel of `wide` queries."""
    i32, put_f32, put_i32 = simd.i32_at, simd.put_f32, simd.put_i32
    load, load_part, store, lanes, size = simd.load, simd.load_part, simd.store, simd.lanes, bits // 8
    put, per, row_bytes = (simd.store_i8 if bits == 8 else simd.store_i16), 4 // size, 4 * wide
    short, bias, share = bits == 16, 128.0 if bits == 8 else 0.0, float(VALUES[bits])
    zero, add, sub, mul, splat = simd.zero, simd.add, simd.sub, simd.mul, simd.splat
    absolute, maximum, rint, total = simd.abs, simd.maximum, simd.rint, simd.sum
    magnitude, larger, largest = simd.magnitude, simd.larger, simd.largest
    words, invert, fit, join = _words(simd, per), _inverse(simd, share), _fitting(simd, bits), simd.fma

    @jit
    def centre(k: int, stride: int, count: int, width: int, to: int) -> None:
        """The mean of keys."""
        for i in range(0, width, lanes):
            a, b, c, d, x, n = zero(), zero(), zero(), zero(), k + 4 * i, width - i
            for _ in range(count // 4):
                a, b = add(a, load_part(x, n)), add(b, load_part(x + stride, n))
                c, d = add(c, load_part(x + 2 * stride, n)), add(d, load_part(x + 3 * stride, n))
                x += 4 * stride
            for _ in range(count % 4):
                a = add(a, load_part(x, n))
                x += stride
            store(to + 4 * i, mul(add(add(a, b), add(c, d)), splat(1.0 / count)))

    @jit
    def quantise_keys(k: int, stride: int, count: int, width: int, mean: int, to: int, scales: int) -> float:
        """A block of keys, its last one again up to a multiple of TOGETHER. NaN where one has no finite scale."""
        padded, flaw = (width + lanes - 1) // lanes * lanes, 0.0
        for j in range((count + TOGETHER - 1) // TOGETHER * TOGETHER):
            x, top = k + min(j, count - 1) * stride, magnitude(zero())
            for i in range(0, width, lanes):
                top = larger(magnitude(sub(load_part(x + 4 * i, width - i), load(mean + 4 * i))), top)
            most, squares = largest(top), zero()
            if short:
                one = splat(1.0 / most if most > LEAST else 0.0)
                for i in range(0, width, lanes):
                    v = mul(sub(load_part(x + 4 * i, width - i), load(mean + 4 * i)), one)
                    squares = join(v, v, squares)
            scale, factor = fit(most, squares)
            inverse = splat(factor)
            for i in range(0, width, lanes):
                v = rint(mul(sub(load_part(x + 4 * i, width - i), load(mean + 4 * i)), inverse))
                put(to + size * (j * padded + i), add(v, splat(bias)))
            flaw += 0.0 * most
            put_f32(scales + 4 * j, scale)
        return flaw

    @jit
    def quantise_values(v: int, stride: int, count: int, width: int, flaw: float, to: int, shares: int) -> None:
        """A block of values, some keys in a word; weights of keys that are not there are 0."""
        padded = (width + lanes - 1) // lanes * lanes
        for i in range(0, width, lanes):
            top, n = zero(), width - i
            for j in range(count):
                top = maximum(absolute(load_part(v + j * stride + 4 * i, n)), top)
            store(shares + 4 * i, add(mul(top, splat(1.0 / share)), splat(flaw)))
            inverse = invert(top)
            for j in range(0, count, 4):
                a, b = v + j * stride + 4 * i, v + min(j + 1, count - 1) * stride + 4 * i
                c, d = v + min(j + 2, count - 1) * stride + 4 * i, v + min(j + 3, count - 1) * stride + 4 * i
                words(
                    to + (j // per * padded + i) * 4, 4 * padded, mul(load_part(a, n), inverse),
                    mul(load_part(b, n), inverse), mul(load_part(c, n), inverse), mul(load_part(d, n), inverse),
                )  # fmt: skip

    @jit
    def quantise_queries(
        q: int, stride: int, rows: int, width: int, scaling: float, to: int, state: int, room: int
    ) -> None:
        """A panel times `scaling`, its last row again where there are fewer."""
        factor = splat(scaling)
        for r in range(wide):
            x = q + min(r, rows - 1) * stride
            top, whole, squares = magnitude(zero()), zero(), zero()
            for i in range(0, width, lanes):
                top = larger(magnitude(mul(load_part(x + 4 * i, width - i), factor)), top)
            most = largest(top)
            if short:
                one = splat(1.0 / most if most > LEAST else 0.0)
                for i in range(0, width, lanes):
                    v = mul(mul(load_part(x + 4 * i, width - i), factor), one)
                    squares = join(v, v, squares)
            scale, turn = fit(most, squares)
            inverse = splat(turn)
            for i in range(0, width, lanes):
                v = rint(mul(mul(load_part(x + 4 * i, width - i), factor), inverse))
                put(room + size * i, v)
                whole = add(whole, v)
            for word in range((width + per - 1) // per):
                put_i32(to + word * row_bytes + 4 * r, i32(room + 4 * word))
            put_f32(state + 4 * r, LOWEST)
            put_f32(state + 4 * (INT_ROWS + r), 0.0)
            put_f32(state + 4 * (2 * INT_ROWS + r), scale)
            put_i32(state + 4 * (3 * INT_ROWS + r), 0 if short else -128 * int(total(whole)))

    return centre, quantise_keys, quantise_values, quantise_queries


def _fitting(simd: Simd, bits: int) -> Any:
    """fit(most, squares) -> (scale, its inverse): of a vector whose largest value is `most`.

    `squares`, lane by lane, are those of its values over the largest; they say how long it is, for 16 bits.
    """
    total, root, short = simd.sum, simd.sqrt1, bits == 16

    @inlined
    def fit(most: float, squares: Any) -> Any:
        if short:
            share = root(total(squares)) * LONGEST
            scale = most * (LARGEST if share < LARGEST else share)
            return scale, 1.0 / scale if most > LEAST else 0.0
        return most * (1.0 / 127.0), 127.0 / most if most > 0.0 else 0.0

    return fit


def _inverse(simd: Simd, share: float) -> Any:
    """share / x, 0 where x is 0."""

    def emit(b: Any, x: Any) -> Any:
        kind = x.type
        there = b.fcmp_ordered("!=", x, constant(kind, 0.0))
        some = b.or_(there, b.fcmp_unordered("uno", x, x))
        return b.select(some, b.fdiv(constant(kind, share), x), constant(kind, 0.0))

    return operation(simd.F, (simd.F,), emit)


def _packed(b: Any, numbers: list[Any]) -> Any:
    """Four vectors of int32 as bytes of one, or two as its halves: each number's low bits, the first one lowest."""
    kind, bits = numbers[0].type, 32 // len(numbers)
    low = constant(kind, (1 << bits) - 1)
    whole = b.and_(numbers[0], low)
    for j, n in enumerate(numbers[1:-1], 1):
        whole = b.or_(whole, b.shl(b.and_(n, low), constant(kind, bits * j)))
    return b.or_(whole, b.shl(numbers[-1], constant(kind, 32 - bits)))


def rounded(b: Any, x: Any) -> Any:
    """The nearest int32, of two the even one."""
    n = x.type.count
    if n == 16:
        words = ir.VectorType(I32, 16)
        arguments = (x, constant(words, 0), ir.Constant(ir.IntType(16), -1), I32(4))
        return call(b, "llvm.x86.avx512.mask.cvtps2dq.512", words, arguments)
    return call(b, "llvm.x86.avx.cvt.ps2dq.256", ir.VectorType(I32, n), (x,))


def store_words(b: Any, to: Any, stride: Any, per: int, numbers: list[Any]) -> None:
    """Four vectors of integers, `per` a word: one word a lane, or another `stride` bytes behind it."""
    for word in range(0, 4, per):
        place = b.add(to, b.mul(stride, I64(word // per)))
        store(b, _packed(b, numbers[word : word + per]), place)


def _words(simd: Simd, per: int) -> Any:
    """words(to, stride, a, b, c, d): the nearest integers, lane after lane."""

    def emit(b: Any, to: Any, stride: Any, *x: Any) -> None:
        store_words(b, to, stride, per, [rounded(b, v) for v in x])

    return operation(types.void, (types.int64, types.int64, *[simd.F] * 4), emit)
