"""Rows of float32 to int8 in groups of 32, as the linear kernels take them.

A group's scale is its largest magnitude / 127. Beside the bytes go the scale (f32 a group) and, for each `group`
of 16 or 32, the sum of the bytes times -zero (i32), which undoes the bias of weights, and the sum times the scale
(f32), which weights with a minimum need. Where products of bytes are added up in 16 bits (`maddubs`), two sums as they
are stand in the first one's place: of the first and second byte of each four, and of the third and fourth. Items are
rows.

Arguments: x, bytes a row of x, inputs (a multiple of 32), bytes out, scales out, sums out, lifts out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.simd import F32, I8, I32, I64, Simd, call, constant, load, operation, store

X, X_ROW, INPUTS, BYTES, SCALES, SUMS, LIFTS = (8 * i for i in range(7))
_GROUP = 32  # inputs that share a scale
_AT_ONCE = 4  # groups whose maxima and sums are joined together: one alone would be waited for


def make(simd: Simd, group: int, zero: int = 0) -> Any:
    at, parts, size = simd.i64_at, _GROUP // group, 4 * _GROUP
    at_once = min(_AT_ONCE, simd.lanes // parts)  # their sums fill a vector at most
    some, one = (_Rounding(simd, count, group, zero).emit for count in (at_once, 1))
    some, one = (operation(types.void, (types.int64,) * 5, emit) for emit in (some, one))

    def quantise(args: int, first: int, last: int, thread: int) -> int:
        inputs = at(args + INPUTS)
        groups = inputs // _GROUP
        for row in range(first, last):
            x, q = at(args + X) + row * at(args + X_ROW), at(args + BYTES) + row * inputs
            scales, place = at(args + SCALES) + row * groups * 4, row * groups * parts * 4
            sums, lifts = at(args + SUMS) + place, at(args + LIFTS) + place
            g = 0
            while g < groups:
                if g + at_once <= groups:
                    some(x + size * g, q + _GROUP * g, scales + 4 * g, sums + 4 * parts * g, lifts + 4 * parts * g)
                    g += at_once
                else:
                    one(x + size * g, q + _GROUP * g, scales + 4 * g, sums + 4 * parts * g, lifts + 4 * parts * g)
                    g += 1
        return 0

    return quantise


class _Rounding:
    """Writes the code for `count` groups that lie after each other."""

    def __init__(self, simd: Simd, count: int, group: int, zero: int) -> None:
        self.lanes, self.count, self.parts, self.zero = simd.lanes, count, _GROUP // group, zero
        self.pairs = simd.isa.dot == "maddubs"
        self.floats, self.words = ir.VectorType(F32, simd.lanes), ir.VectorType(I32, simd.lanes)

    def emit(self, b: Any, x: Any, q: Any, scales: Any, sums: Any, lifts: Any) -> None:
        """Bytes, scales, sums and lifts of the groups at x."""
        each = _GROUP // self.lanes
        values = [load(b, b.add(x, I64(4 * self.lanes * i)), self.floats) for i in range(self.count * each)]
        magnitude = [b.and_(b.bitcast(v, self.words), constant(self.words, 0x7FFFFFFF)) for v in values]
        larger = [_tree(b, magnitude[i : i + each], _larger) for i in range(0, len(values), each)]
        largest = b.bitcast(self._joined(b, larger, _larger), ir.VectorType(F32, self.count))  # a NaN is above all
        many, top = largest.type, constant(largest.type, 127.0)
        scale, is_there = b.fdiv(largest, top), b.fcmp_ordered(">", largest, constant(many, 0.0))
        inverse = b.select(is_there, b.fdiv(top, largest), constant(many, 0.0))
        rounded = []
        for i, value in enumerate(values):
            factor = _repeated(b, inverse, [i // each] * self.lanes)
            product = call(b, f"llvm.rint.v{self.lanes}f32", self.floats, (b.fmul(value, factor),))
            rounded.append(b.fptosi(product, self.words))
            store(b, b.trunc(rounded[-1], ir.VectorType(I8, self.lanes)), b.add(q, I64(self.lanes * i)))
        self._sums(
            b, rounded, _repeated(b, scale, [i // self.parts for i in range(self.count * self.parts)]), sums, lifts
        )
        store(b, scale, scales)

    def _sums(self, b: Any, rounded: list[Any], scale: Any, sums: Any, lifts: Any) -> None:
        each = _GROUP // self.parts // self.lanes
        added = [_tree(b, rounded[i : i + each], _added) for i in range(0, len(rounded), each)]
        total = self._joined(b, added, _added)
        store(b, b.fmul(b.sitofp(total, scale.type), scale), lifts)
        if self.pairs:
            late = ir.Constant(self.words, [-(i % 4 > 1) for i in range(self.lanes)])
            second = self._joined(b, [b.and_(value, late) for value in added], _added)
            first = b.and_(b.sub(total, second), constant(total.type, 0xFFFF))
            store(b, b.or_(b.shl(second, constant(total.type, 16)), first), sums)
        else:
            store(b, b.mul(total, constant(total.type, -self.zero)), sums)

    def _joined(self, b: Any, vectors: Sequence[Any], join: Callable[..., Any]) -> Any:
        """All lanes of each vector joined: one number a vector. Halves of two vectors share the steps."""
        width = self.lanes  # lanes that are still to be joined, of each
        while width > 1:
            width //= 2
            pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
            vectors = [join(b, *(_halves(b, pair, width, i) for i in (0, 1))) for pair in pairs]
        assert len(vectors) == 1
        return vectors[0]


def _halves(b: Any, pair: Sequence[Any], width: int, which: int) -> Any:
    """The first or second `width` lanes of every 2 x `width`, of one vector or two after each other."""
    count = sum(vector.type.count for vector in pair)
    lanes = [i + which * width + j for i in range(0, count, 2 * width) for j in range(width)]
    other = pair[1] if len(pair) > 1 else ir.Constant(pair[0].type, ir.Undefined)
    return b.shuffle_vector(pair[0], other, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def _repeated(b: Any, vector: Any, lanes: list[int]) -> Any:
    return b.shuffle_vector(
        vector, ir.Constant(vector.type, ir.Undefined), ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    )


def _tree(b: Any, vectors: Sequence[Any], join: Callable[..., Any]) -> Any:
    """Vectors of the same lanes, joined lane by lane."""
    first, *rest = vectors
    for vector in rest:
        first = join(b, first, vector)
    return first


def _larger(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_unsigned(">", x, y), x, y)


def _added(b: Any, x: Any, y: Any) -> Any:
    return b.add(x, y)
