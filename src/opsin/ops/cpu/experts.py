"""Experts: what the kernels of `kernels/experts.py` are given. Products are those of `linear`, expert by expert.

Bytes that a step reads of a stack are those of the experts that its rows chose, each once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import Array, Raw, Size, most, product
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.pack import PackedStack, Packer
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.tape import Tape, place
from opsin.ops.cpu.tiles import EXPERT_CALL, linear_scratch
from opsin.ops.cpu.words import float_bits
from opsin.ops.layout import RECORD, Layout
from opsin.ops.routes import Routes, Routing, Stack


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which experts have rows, at which places theirs begin, and how many parts of experts that makes."""

    touched: Array
    starts: Array
    items: npt.NDArray[np.int64]  # written by `plan`


class ExpertOperations(ABC):
    """The part of `Operations` for experts."""

    tape: Tape
    _packer: Packer
    _scratch: Scratch

    @abstractmethod
    def new(self, shape: tuple[Size, ...], dtype: str = "f32") -> Array: ...

    @abstractmethod
    def reshape(self, x: Array, shape: tuple[Size, ...]) -> Array: ...

    @abstractmethod
    def _quantised(self, x: Array, layout: Layout) -> tuple[Array, ...]: ...

    def pack_experts(self, raw: Raw, experts: int) -> Stack:
        return self._packer.pack_experts(raw, experts)

    def route(self, logits: Array, how: Routing, bias: Array | None = None, gains: Array | None = None) -> Routes:
        rows, count = logits.shape[0], logits.width
        if logits.rank != 2 or not how.fits(count):
            raise ModelError(f"route: logits are {logits.shape}, chosen from as {how}")
        for name, part in (("bias", bias), ("gains", gains)):
            if part is not None and part.shape != (count,):
                raise ModelError(f"route: {name} is {part.shape}, not {(count,)}")
        experts, shares = self.new((rows, how.used), "i32"), self.new((rows, how.used))
        scores, merits = self.new((rows, count)), self.new((rows, count))
        at = place(logits)
        args = (
            at.address, at.row, count, how.used, how.groups, how.used_groups, float_bits(how.scale),
            *(place(part).address if part is not None else 0 for part in (bias, gains)),
            *(place(part).address for part in (scores, merits, experts, shares)),
        )  # fmt: skip
        kernel = Kernel.of("experts", part="route", gating=how.gating, normalised=how.normalised)
        reads = [part for part in (logits, bias, gains) if part is not None]
        self.tape.emit(kernel, args, items=rows, reads=reads, writes=[scores, merits, experts, shares])
        return self._planned(experts, shares, count)

    def _planned(self, experts: Array, shares: Array, count: int) -> Routes:
        """Places for pairs, expert by expert."""
        rows, used = experts.shape[0], experts.width
        pairs, places = self.new((rows, used), "i32"), self.new((rows, used), "i32")
        touched, starts, counts = self.new((count,), "i32"), self.new((count + 1,), "i32"), self.new((count,), "i32")
        plan, cell = _Plan(touched, starts, np.zeros(1, np.int64)), self.tape.cell(rows)
        args = (
            place(experts).address, cell if isinstance(cell, int) else int(cell.ctypes.data), used, count,
            *(place(part).address for part in (pairs, places, touched, starts, counts)), int(plan.items.ctypes.data),
        )  # fmt: skip
        self.tape.emit(
            Kernel.of("experts", part="plan"), args, items=1, reads=[experts],
            writes=[pairs, places, touched, starts, counts], keep=(cell, plan),
        )  # fmt: skip
        return Routes(experts, shares, pairs, places, plan)

    def spread(self, x: Array, routes: Routes, *, weighed: bool = False) -> Array:
        rows, used = routes.pairs.shape[0], routes.pairs.width
        if x.rank != 2 or x.shape[0] != rows:
            raise ModelError(f"spread: x is {x.shape}, there are routes of {rows} rows")
        y = self.new((rows, used, x.width))
        shares = place(routes.shares).address if weighed else 0
        args = (place(x).address, place(x).row, place(routes.pairs).address, shares, used, x.width, place(y).address)
        self.tape.emit(
            Kernel.of("experts", part="spread"), args, items=rows, reads=[x, routes.pairs, routes.shares], writes=[y]
        )
        return y

    def experts(self, x: Array, w: Stack, routes: Routes, bias: Array | None = None) -> Array:
        assert isinstance(w, PackedStack), "a weight of another device"
        assert isinstance(routes.plan, _Plan), "routes of another device"
        (count, outputs, inputs), (rows, used), plan = w.shape, routes.pairs.shape, routes.plan
        if x.shape != (rows, used, inputs) or place(x).row != 4 * product(x.shape[1:]):
            raise ModelError(f"experts: x is {x.shape}, {(rows, used, inputs)} is needed")
        if count != most(plan.touched.shape[0]):
            raise ModelError(f"experts: {count} matrices, and routes to {plan.touched.shape[0]} experts")
        if bias is not None and bias.shape != (count, outputs):
            raise ModelError(f"experts: bias is {bias.shape}, not {(count, outputs)}")
        y = self.new((rows, used, outputs))
        source, reads = self._places(x, w.layout)
        scratch, size = self._scratch.of(EXPERT_CALL + linear_scratch(self.tape.code.isa.dot, w.layout, inputs))
        planes, sums_row = w.layout.kind == "planes", 4 * (inputs // w.layout.group)
        args = (
            w.block.address, *source, place(y).address, 4 * outputs, outputs, inputs // RECORD if planes else inputs, 0,
            place(bias).address if bias is not None else 0, 0, 0, scratch.block.address, size, w.layout.group // 4,
            self.tape.code.address(Kernel.of("linear", **w.layout.options)), place(plan.touched).address,
            place(plan.starts).address, w.expert_bytes, sums_row, 4 * outputs,
        )  # fmt: skip
        reads += [plan.touched, plan.starts, *([bias] if bias is not None else [])]
        self.tape.emit(
            Kernel.of("experts", part="products"), args, items=plan.items, reads=reads, writes=[y],
            keep=(w, plan, scratch),
        )  # fmt: skip
        return y

    def _places(self, x: Array, layout: Layout) -> tuple[tuple[int, ...], list[Array]]:
        """`linear`'s (x, bytes a row, scales, bytes a row, sums, lifts), where a place is a row."""
        if layout.kind != "planes":
            return (place(x).address, 4 * x.width, 0, 0, 0, 0), [x]
        parts = self._quantised(self.reshape(x, (x.shape[0], product(x.shape[1:]))), layout)
        q, scales, sums, lifts = (place(part).address for part in parts)
        return (q, x.width, scales, 4 * (x.width // RECORD), sums, lifts), list(parts)

    def join(self, x: Array, routes: Routes, residual: Array | None = None, *, weighed: bool = True) -> Array:
        rows, used = routes.places.shape
        if x.rank != 3 or x.shape[:2] != (rows, used) or place(x).row != 4 * product(x.shape[1:]):
            raise ModelError(f"join: x is {x.shape}, there are routes of {rows} rows to {used} experts")
        if residual is not None and residual.shape != (rows, x.width):
            raise ModelError(f"join: residual is {residual.shape}, not {(rows, x.width)}")
        y, shares = self.new((rows, x.width)), place(routes.shares).address if weighed else 0
        args = (
            place(x).address, place(routes.places).address, shares, most(used), x.width,
            *((place(residual).address, place(residual).row) if residual is not None else (0, 0)), place(y).address,
        )  # fmt: skip
        reads = [x, routes.places, routes.shares, *([residual] if residual is not None else [])]
        self.tape.emit(Kernel.of("experts", part="join"), args, items=rows, reads=reads, writes=[y])
        return y

    def gated(self, x: Array, by: Array, w: Array, residual: Array | None = None) -> Array:
        if x.rank != 2 or by.rank != 2 or by.shape[0] != x.shape[0] or w.shape != (by.width,):
            raise ModelError(f"gated: x is {x.shape}, by {by.shape}, w {w.shape}")
        if residual is not None and residual.shape != x.shape:
            raise ModelError(f"gated: residual is {residual.shape}, not {x.shape}")
        y = self.new(x.shape)
        args = (
            place(x).address, place(x).row, x.width, place(by).address, place(by).row, place(w).address, by.width,
            *((place(residual).address, place(residual).row) if residual is not None else (0, 0)), place(y).address,
        )  # fmt: skip
        reads = [x, by, w, *([residual] if residual is not None else [])]
        self.tape.emit(Kernel.of("experts", part="gated"), args, items=x.shape[0], reads=reads, writes=[y])
        return y
