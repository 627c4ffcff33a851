"""Recurrent state on the CPU: where it lies, and what the kernels `conv_state` and `delta` are given."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from opsin.arrays import Bytes
from opsin.errors import ModelError
from opsin.ops import Activation, Array, Size, most, product
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.tape import Tape, place
from opsin.ops.cpu.tiles import DELTA_ROWS, STATE_STRIP, delta_vectors
from opsin.ops.cpu.words import float_bits
from opsin.ops.recurrence import Runs, States


class PaddedStates:
    """`opsin.ops.States`: for each layer a run of slots. The last size of `shape` is padded to whole strips."""

    def __init__(self, *, layers: int, shape: tuple[int, ...], count: int) -> None:
        self.layers, self.shape, self.count = layers, shape, count
        self.padded = -(-shape[-1] // STATE_STRIP) * STATE_STRIP
        self.slot_bytes = 4 * product(shape[:-1]) * self.padded
        # Zeroed memory is mapped when it is first touched, so slots cost nothing until they are used.
        self.blocks = [Block(count * self.slot_bytes, zero=True) for _ in range(layers)]

    @property
    def bytes(self) -> int:
        return sum(block.bytes for block in self.blocks)

    def read(self, slot: int) -> Bytes:
        here = slice(slot * self.slot_bytes, (slot + 1) * self.slot_bytes)
        return np.concatenate([block.data[here] for block in self.blocks])

    def write(self, slot: int, contents: Bytes) -> None:
        if contents.shape != (self.slot_bytes * self.layers,):
            raise ModelError(f"a state of {self.slot_bytes * self.layers} bytes, and {contents.shape} were given")
        for layer, block in enumerate(self.blocks):
            part = contents[layer * self.slot_bytes : (layer + 1) * self.slot_bytes]
            block.data[slot * self.slot_bytes : (slot + 1) * self.slot_bytes] = part


class RecurrentOperations(ABC):
    """The part of `Operations` for recurrent state."""

    tape: Tape
    _scratch: Scratch

    @abstractmethod
    def new(self, shape: tuple[Size, ...], dtype: str = "f32") -> Array: ...

    @abstractmethod
    def _each(
        self, name: str, x: Array, *, y: Array | None = None, bias: Array | None = None, number: float = 0.0,
        width: int = 0,
    ) -> Array: ...  # fmt: skip

    def states(self, *, layers: int, shape: tuple[int, ...], count: int) -> States:
        return PaddedStates(layers=layers, shape=shape, count=count)

    def conv_state(
        self, x: Array, w: Array, states: States, layer: int, runs: Runs, kind: Activation | None = None
    ) -> Array:
        slots, steps = _slots(states), most(w.shape[0])
        if x.rank != 2 or w.shape != (steps, x.width) or slots.shape != (steps - 1, x.width):
            raise ModelError(f"conv_state: x is {x.shape}, w {w.shape}, a state {slots.shape}")
        out, block = self.new(x.shape), slots.blocks[layer]
        words, cells = self._run_words(slots, runs, x)
        args = (
            place(x).address, place(x).row, place(w).address, x.width, place(out).address, place(out).row,
            block.address, slots.slot_bytes, 4 * slots.padded, *words,
        )  # fmt: skip
        rows = Kernel.of("conv_state", part="rows", steps=steps, **({"activation": kind} if kind else {}))
        sources = [x, runs.starts, runs.reads, runs.writes]
        self.tape.emit(rows, args, items=x.shape[0], reads=[*sources, w, block], writes=[out], keep=(slots, cells))
        self.tape.emit(
            Kernel.of("conv_state", part="state", steps=steps), args, items=runs.reads.shape[0], reads=sources,
            writes=[block], keep=(slots, cells),
        )  # fmt: skip
        return out

    def delta(
        self, q: Array, k: Array, v: Array, decay: Array, beta: Array, states: States, layer: int, runs: Runs, *,
        scale: float, eps: float, grouped: bool = False,
    ) -> Array:  # fmt: skip
        slots = _slots(states)
        heads, keys, values = _delta_shape(slots, q, k, v, decay, beta)
        out, block, isa = self.new((v.shape[0], heads * values)), slots.blocks[layer], self.tape.code.isa
        scratch, size = self._scratch.of(4 * DELTA_ROWS * (2 * keys + 1) + 64)
        words, cells = self._run_words(slots, runs, v)
        inputs, groups = (q, k, v, decay, beta), q.width // keys
        args = (
            *(word for x in (*inputs, out) for word in (place(x).address, place(x).row)), block.address,
            slots.slot_bytes, *words, groups, heads // groups if grouped else 0, keys, values, slots.padded,
            float_bits(scale), float_bits(eps), scratch.block.address, size,
        )  # fmt: skip
        kernel = Kernel.of("delta", vectors=delta_vectors(isa.lanes, isa.registers))
        self.tape.emit(
            kernel, args, items=heads, reads=[*inputs, runs.starts, runs.reads, runs.writes], writes=[out, block],
            keep=(slots, cells, scratch),
        )  # fmt: skip
        return out

    def decay(self, x: Array, rate: Array) -> Array:
        if x.rank != 2 or rate.shape != (x.width,):
            raise ModelError(f"decay: x is {x.shape}, the rate {rate.shape}")
        return self._each("decay", x, y=rate)

    def _run_words(self, slots: PaddedStates, runs: Runs, x: Array) -> tuple[tuple[int, ...], tuple[object, ...]]:
        """What both kernels are told of the sequences in a batch of x's rows, and what must be kept for it."""
        sequences = most(runs.reads.shape[0])
        if runs.writes.shape != runs.reads.shape or most(runs.starts.shape[0]) != sequences + 1:
            raise ModelError(f"starts {runs.starts.shape}, reads {runs.reads.shape}, writes {runs.writes.shape}")
        cells = tuple(self.tape.cell(size) for size in (runs.reads.shape[0], x.shape[0]))
        counts = (cell if isinstance(cell, int) else int(cell.ctypes.data) for cell in cells)
        at = (place(part).address for part in (runs.starts, runs.reads, runs.writes))
        return (slots.count, *at, *counts), cells


def _delta_shape(slots: PaddedStates, q: Array, k: Array, v: Array, decay: Array, beta: Array) -> tuple[int, int, int]:
    """Value heads, key width, value width. Raises ModelError where the arguments have others."""
    if len(slots.shape) == 3:
        heads, keys, values = slots.shape
        groups = q.width // keys
        fits = groups and q.width == groups * keys and heads % groups == 0 and k.shape == q.shape
        sized = v.width == heads * values and decay.width == beta.width == heads
        if fits and sized and all(x.rank == 2 and x.shape[0] == v.shape[0] for x in (q, v, decay, beta)):
            return heads, keys, values
    shapes = ", ".join(str(x.shape) for x in (q, k, v, decay, beta))
    raise ModelError(f"delta: q, k, v, decay and beta are {shapes}, a state {slots.shape}")


def _slots(states: States) -> PaddedStates:
    assert isinstance(states, PaddedStates), "states of another device"
    return states
