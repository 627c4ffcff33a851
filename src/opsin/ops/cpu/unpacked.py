"""Tiles over quantised weights that were unpacked for all rows of a strip: what `Dots` computes, to the bit.

For CPUs that have `maddubs` and nothing better: there, taking a weight out of its planes costs as much as multiplying
it with a few rows. A record of the outputs of one tile then lies together: scales as float32 [groups][outputs], minima
likewise where the format has them, then bytes [8 steps][outputs][4].
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.group_dots import GroupDots, biased, fits
from opsin.ops.cpu.simd import I16, I32, I64, Simd, Tile, call, constant, load, operation, splat, store
from opsin.ops.layout import RECORD, Layout

STEPS = RECORD // 4


class Unpacked:
    """Operations on tiles of `vectors` x `tokens`; a group is 32 or 16 weights."""

    def __init__(self, simd: Simd, layout: Layout, *, vectors: int, tokens: int) -> None:
        bits, zero, table = layout.bits, layout.zero, layout.table
        self.tile = Dots(simd, vectors=vectors, tokens=tokens, bits=bits, zero=zero, table=table)
        self.simd, self.layout, self.vectors, self.tokens = simd, layout, vectors, tokens
        self.wide = vectors * simd.lanes
        self.groups = RECORD // layout.group  # a record
        self.steps = STEPS // self.groups  # a group
        self.scale_bytes = 4 * self.wide * self.groups
        self.record_bytes = self.scale_bytes * (2 if layout.minimum else 1) + RECORD * self.wide
        # 16-bit sums hold a whole group where values are small, and become 32-bit ones at its end.
        one = Dots(simd, vectors=vectors, tokens=1, bits=bits, zero=zero, table=table)
        self.deferred, self.lowered = fits(one, self.steps), zero
        if not self.deferred and zero == 0:  # but they hold it around the middle of what weights may be
            self.lowered = 1 << (bits - 1)
            self.deferred = fits(Dots(simd, vectors=vectors, tokens=1, bits=bits, zero=self.lowered), self.steps)
        i64 = types.int64
        self.start = operation(self.tile.I, (i64, i64, i64), self._start)
        self.step = operation(self.tile.I, (self.tile.I, i64, i64, i64, i64), self._step)
        self.close = operation(self.tile.I, (self.tile.I, i64, i64, i64), self._close)
        self.bytes_of = operation(types.void, (i64, i64), lambda b, w, to: self._bytes(b, GroupDots(one, b, w), to))
        factors, kinds = Tile(simd.F, vectors), layout.numbers
        self.scales_of, self.minima_of = (
            operation(types.void, (i64, factors, i64), self._numbers(one, kind)) for kind in kinds
        )

    def _bytes(self, b: Any, group: GroupDots, to: Any) -> None:
        """A record's weights, from its planes."""
        for step in range(STEPS):
            for v in range(self.vectors):
                place = b.add(to, I64(4 * self.simd.lanes * (step * self.vectors + v)))
                store(b, group.signed(group.values(v, step)), place)

    def _numbers(self, one: Dots, held: str) -> Any:
        def emit(b: Any, w: Any, factors: Any, to: Any) -> None:
            for v, value in enumerate(one.numbers(b, w, factors, held)):
                store(b, value, b.add(to, I64(4 * self.simd.lanes * v)))

        return emit

    def _start(self, b: Any, sums: Any, stride: Any, left: Any) -> Any:
        """Sums that take so much off all weights as 16 bits need, or as they are biased by."""
        acc = ir.Constant(self.tile.I.ir, [constant(self.simd.I.ir, 0)] * self.tile.size)
        if self.lowered in (0, 128):
            return acc
        for t in range(self.tokens):
            number = load(b, self.tile.place(b, sums, stride, left, t), I32)
            value = b.bitcast(biased(b, number, self.lowered, self.simd.lanes), self.simd.I.ir)
            for v in range(self.vectors):
                acc = b.insert_value(acc, value, t * self.vectors + v)
        return acc

    def _step(self, b: Any, acc: Any, w: Any, x: Any, stride: Any, left: Any) -> Any:
        """acc + four products of bytes an output; as 16-bit pairs where they are deferred."""
        lanes, kind = self.simd.lanes, self.simd.I.ir
        weights = [load(b, b.add(w, I64(4 * lanes * v)), kind) for v in range(self.vectors)]
        group = GroupDots(self.tile, b, w)
        pairs = ir.VectorType(I16, 2 * lanes)
        for t in range(self.tokens):
            token = splat(b, load(b, self.tile.place(b, x, stride, left, t), I32), lanes)
            for v, weight in enumerate(weights):
                i = t * self.vectors + v
                product, value = group.maddubs(weight, token), b.extract_value(acc, i)
                if self.deferred:
                    value = b.bitcast(b.add(b.bitcast(value, pairs), product), kind)
                else:
                    value = b.add(value, self._widened(b, product))
                acc = b.insert_value(acc, value, i)
        return acc

    def _widened(self, b: Any, pairs: Any) -> Any:
        ones = constant(pairs.type, 1)
        return call(b, "llvm.x86.avx2.pmadd.wd", self.simd.I.ir, (pairs, ones))

    def _close(self, b: Any, acc: Any, sums: Any, stride: Any, left: Any) -> Any:
        """The group's sums in 32 bits, without the weights' bias."""
        pairs = ir.VectorType(I16, 2 * self.simd.lanes)
        for t in range(self.tokens if self.deferred else 0):
            more = None
            if self.lowered != self.layout.zero:
                number = b.bitcast(
                    splat(b, load(b, self.tile.place(b, sums, stride, left, t), I32), self.simd.lanes), pairs
                )
                more = call(b, "llvm.x86.avx2.pmadd.wd", self.simd.I.ir, (number, constant(pairs, self.lowered)))
            for v in range(self.vectors):
                i = t * self.vectors + v
                value = self._widened(b, b.bitcast(b.extract_value(acc, i), pairs))
                acc = b.insert_value(acc, value if more is None else b.add(value, more), i)
        return acc
