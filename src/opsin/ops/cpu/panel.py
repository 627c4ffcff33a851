"""Panels: blocks of float32 sums in registers, for products whose both sides lie ready as float32.

A panel holds `rows` x `vectors` sums: row r takes x[r] times the vectors at w. Nothing is masked: whoever lays out
memory for panels gives whole vectors and whole rows. It does not know what is multiplied.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.simd import F32, I32, I64, Simd, Tile, constant, fma, load, load_part, operation, splat, store


class Panel:
    """Operations on blocks of `rows` x `vectors` sums."""

    def __init__(self, simd: Simd, *, vectors: int, rows: int) -> None:
        self.simd, self.vectors, self.rows = simd, vectors, rows
        self.wide = vectors * simd.lanes
        self.kind = Tile(simd.F, vectors * rows)
        i64 = types.int64
        self.zeros = operation(self.kind, (), self._zeros)
        self.step = operation(self.kind, (self.kind, i64, i64, i64), self._step)
        self.load = operation(self.kind, (i64, i64), self._load)
        self.store = operation(types.void, (self.kind, i64, i64), self._store)

    def _zeros(self, b: Any) -> Any:
        return ir.Constant(self.kind.ir, [constant(self.simd.F.ir, 0.0)] * self.kind.n)

    def _step(self, b: Any, acc: Any, w: Any, x: Any, stride: Any) -> Any:
        """acc + x * w: `vectors` vectors at w, a number a row at x, `stride` bytes from row to row."""
        lanes = self.simd.lanes
        weights = [load(b, b.add(w, I64(4 * lanes * v)), self.simd.F.ir) for v in range(self.vectors)]
        for r in range(self.rows):
            number = splat(b, load(b, b.add(x, b.mul(I64(r), stride)), F32), self.simd.lanes)
            for v, weight in enumerate(weights):
                i = r * self.vectors + v
                acc = b.insert_value(acc, fma(b, weight, number, b.extract_value(acc, i)), i)
        return acc

    def _places(self, b: Any, y: Any, stride: Any) -> list[Any]:
        starts = [b.add(y, b.mul(I64(r), stride)) for r in range(self.rows)]
        return [b.add(start, I64(4 * self.simd.lanes * v)) for start in starts for v in range(self.vectors)]

    def _load(self, b: Any, y: Any, stride: Any) -> Any:
        acc = ir.Constant(self.kind.ir, ir.Undefined)
        for i, place in enumerate(self._places(b, y, stride)):
            acc = b.insert_value(acc, load(b, place, self.simd.F.ir), i)
        return acc

    def _store(self, b: Any, acc: Any, y: Any, stride: Any) -> None:
        for i, place in enumerate(self._places(b, y, stride)):
            store(b, b.extract_value(acc, i), place)


def transpose(simd: Simd) -> Any:
    """transpose(source, bytes a row, rows, columns, to, bytes a row): a square of lanes x lanes float32, turned.

    Where fewer rows or columns exist, zeros stand for columns, and for rows the last one: whole vectors are written.
    """
    n, i64 = simd.lanes, types.int64

    def emit(b: Any, source: Any, stride: Any, rows: Any, columns: Any, to: Any, to_stride: Any) -> None:
        last, x = b.sub(rows, I64(1)), []
        for r in range(n):
            row = b.select(b.icmp_signed("<", I64(r), last), I64(r), last)
            x.append(load_part(b, n, b.add(source, b.mul(row, stride)), columns))
        half = 1
        while half < n:  # swap what lies off the diagonal of blocks twice as large each time
            for i in range(n):
                if i & half:
                    continue
                upper, lower = x[i], x[i + half]
                stay = [j if not j & half else n + j - half for j in range(n)]
                swap = [j + half if not j & half else n + j for j in range(n)]
                x[i] = b.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(I32, n), stay))
                x[i + half] = b.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(I32, n), swap))
            half *= 2
        for r in range(n):
            store(b, x[r], b.add(to, b.mul(I64(r), to_stride)))

    return operation(types.void, (i64,) * 6, emit)
