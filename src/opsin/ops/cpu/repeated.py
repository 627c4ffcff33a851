"""A few rows whose numbers stand in all lanes of memory: what products of `Dots` read, without a step to repeat them.

For CPUs that have `maddubs` and nothing better, where what counts is how many steps a product takes. Of a row's record
lie together: its bytes [8 steps][lanes][4], its scale [lanes], and for each group [lanes] what the weights need: for
with a bias the sums of its bytes as 16-bit pairs, times -zero; with a minimum their sum times the scale.
"""

from __future__ import annotations

from typing import Any

from numba import types

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.group_dots import biased
from opsin.ops.cpu.simd import F32, I32, I64, Simd, load, operation, splat, store
from opsin.ops.cpu.tiles import REPEATED_GROUPS, REPEATED_SCALE
from opsin.ops.layout import RECORD, Layout


class Repeated:
    """A tile of one vector x `tokens`, and what writes a row's record: `repeat(x, scale, lifts or sums, to)`."""

    def __init__(self, simd: Simd, layout: Layout, *, tokens: int) -> None:
        self.simd, self.layout, self.tokens = simd, layout, tokens
        self.tile = Dots(
            simd, vectors=1, tokens=tokens, bits=layout.bits, zero=layout.zero, table=layout.table, repeated=True
        )
        self.repeat = operation(types.void, (types.int64,) * 4, self._repeat)

    def _repeat(self, b: Any, x: Any, scale: Any, more: Any, to: Any) -> None:
        lanes, layout = self.simd.lanes, self.layout
        for step in range(RECORD // 4):
            value = splat(b, load(b, b.add(x, I64(4 * step)), I32), lanes)
            store(b, value, b.add(to, I64(4 * lanes * step)))
        store(b, splat(b, load(b, scale, F32), lanes), b.add(to, I64(REPEATED_SCALE)))
        if layout.minimum or layout.zero not in (0, 128):
            for g in range(RECORD // layout.group):
                number = load(b, b.add(more, I64(4 * g)), I32)
                value = splat(b, number, lanes) if layout.minimum else biased(b, number, layout.zero, lanes)
                store(b, value, b.add(to, I64(REPEATED_GROUPS + 4 * lanes * g)))
