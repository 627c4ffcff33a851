"""A few rows whose numbers stand in all lanes of memory: what products of `Dots` read, without a step to repeat them.

For CPUs that have `maddubs` and nothing better, where what counts is how many steps a product takes. Of a row's record
lie together: its bytes [8 steps][lanes][4], its scale [lanes], and for each group [lanes] what the weights need: for
with a bias the sums of its bytes as 16-bit pairs, times -zero; with a minimum their sum times the scale.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.simd import F32, I8, I16, I32, I64, Simd, call, constant, load, operation, splat, store
from opsin.ops.cpu.tiles import REPEATED_GROUPS, REPEATED_SCALE
from opsin.ops.layout import RECORD, Layout


class Repeated:
    """A tile of one vector x `tokens`, and `repeat(x, scale, lifts, to)`, which writes a row's record."""

    def __init__(self, simd: Simd, layout: Layout, *, tokens: int) -> None:
        self.simd, self.layout, self.tokens = simd, layout, tokens
        self.tile = Dots(
            simd, vectors=1, tokens=tokens, bits=layout.bits, zero=layout.zero, table=layout.table, repeated=True
        )
        self.repeat = operation(types.void, (types.int64,) * 4, self._repeat)

    def _repeat(self, b: Any, x: Any, scale: Any, lifts: Any, to: Any) -> None:
        lanes, group = self.simd.lanes, self.layout.group
        total = None
        for step in range(RECORD // 4):
            value = splat(b, load(b, b.add(x, I64(4 * step)), I32), lanes)
            store(b, value, b.add(to, I64(4 * lanes * step)))
            if self.layout.zero in (0, 128):
                continue
            pairs = self._pairs(b, value)
            total = pairs if total is None else b.add(total, pairs)
            if 4 * (step + 1) % group == 0:
                total = b.mul(total, constant(total.type, -self.layout.zero))
                store(b, total, b.add(to, I64(REPEATED_GROUPS + 4 * lanes * (4 * step // group))))
                total = None
        store(b, splat(b, load(b, scale, F32), lanes), b.add(to, I64(REPEATED_SCALE)))
        for g in range(RECORD // group if self.layout.minimum else 0):
            lift = splat(b, load(b, b.add(lifts, I64(4 * g)), F32), lanes)
            store(b, lift, b.add(to, I64(REPEATED_GROUPS + 4 * lanes * g)))

    def _pairs(self, b: Any, value: Any) -> Any:
        """Sums of neighbouring bytes."""
        bytes_, pairs = ir.VectorType(I8, 4 * self.simd.lanes), ir.VectorType(I16, 2 * self.simd.lanes)
        return call(b, "llvm.x86.avx2.pmadd.ub.sw", pairs, (constant(bytes_, 1), b.bitcast(value, bytes_)))
