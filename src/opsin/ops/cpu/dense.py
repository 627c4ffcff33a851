"""Linear layers of many rows, where these are known: weights of floats, and 16-bit integers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opsin.ops import Activation, Array
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.pack import PackedWeight
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.tape import Lease, place
from opsin.ops.cpu.tiles import DENSE_INPUTS, dense_rows, dense_strips
from opsin.ops.layout import BLOCK, STRIP, strips

if TYPE_CHECKING:
    from opsin.ops.cpu.operations import Operations

_MANY_ROWS = 24  # rows that are worth blocks that stay in the second cache


class Dense:
    """`Ops.linear` of one tape, as far as it goes this way. For one thread at a time, as `Operations`."""

    def __init__(self, ops: Operations, scratch: Scratch) -> None:
        self._ops, self._scratch = ops, scratch
        self._known: WeakKeyDictionary[Lease, dict[tuple[int, int], tuple[Array, Array]]] = WeakKeyDictionary()

    def takes(self, x: Array, w: PackedWeight) -> bool:
        """Whether the layer is one of these."""
        many = isinstance(x.shape[0], int) and x.shape[0] >= _MANY_ROWS
        return w.layout.kind != "planes" and many

    def linear(
        self, x: Array, w: PackedWeight, bias: Array | None, residual: Array | None, activation: Activation | None
    ) -> Array:
        """Shapes are checked."""
        (outputs, inputs), rows, tape = w.shape, x.shape[0], self._ops.tape
        assert isinstance(rows, int), "encoders know how many rows they have"
        y, isa = self._ops.new((rows, outputs)), tape.code.isa
        options = {"kind": w.layout.kind, **({} if activation is None else {"activation": activation})}
        keep: tuple[object, ...] = (w,)
        if w.layout.kind == "int16":
            reads = list(self.integers(x))
            beside, size = place(reads[1]).address, place(reads[1]).row
        else:
            scratch, size = self._scratch.of(4 * STRIP * DENSE_INPUTS)
            reads, beside, keep = [x], scratch.block.address, (w, scratch)
        extra = [part for part in (bias, residual) if part is not None]
        across = -(-strips(outputs) // dense_strips(isa.lanes, isa.registers))
        block = dense_rows(rows, across, isa.lanes, tape.team.threads)
        args = (
            w.block.address, place(reads[0]).address, place(reads[0]).row, place(y).address, place(y).row, outputs,
            inputs, rows, place(bias).address if bias is not None else 0,
            place(residual).address if residual is not None else 0,
            place(residual).row if residual is not None else 0, beside, size, block,
        )  # fmt: skip
        kernel, items = Kernel.of("dense", **options), -(-rows // block) * across
        tape.emit(kernel, args, items=items, reads=[*reads, *extra], writes=[y], keep=keep)
        return y

    def integers(self, x: Array) -> tuple[Array, Array]:
        """x two integers an element, and a scale a block; done once for all weights that read it."""
        at, blocks, ops = place(x), -(-x.width // BLOCK), self._ops
        known, key = self._known.setdefault(at.lease, {}), (at.offset, x.width)
        if key not in known:
            parts = ops.new((x.shape[0], blocks * BLOCK // 2), "i32"), ops.new((x.shape[0], blocks))
            args = (at.address, at.row, x.width, *(place(p).address for p in parts))
            ops.tape.emit(Kernel.of("quantise_int16"), args, items=x.shape[0], reads=[x], writes=parts)
            known[key] = parts
        return known[key]
