"""States of rows that a step leaves for the next one: what a layer that guesses goes on from (`nn.next_token`).

Thread: the engine's.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Floats
from opsin.engine.memory import Inputs
from opsin.nn.batch import Shift
from opsin.ops import Array, Ops
from opsin.ops.device import Recording


class Trail:
    """States [rows, width] after the last norm, of a sequence's last rows.

    Those of rows whose ids were guessed wrong stand among them until their places are computed again: nobody asks for
    them before.
    """

    def __init__(self) -> None:
        self._first, self._states = 0, np.empty((0, 0), np.float32)

    def at(self, place: int) -> Floats | None:
        """The state [width] of the row at a place, if it is there."""
        number = place - self._first
        return self._states[number] if 0 <= number < len(self._states) else None

    def put(self, start: int, states: Floats, *, are_known: bool) -> None:
        """A step computed rows from `start` on. Unless `are_known`, they and the one before may be needed again."""
        before = self.at(start - 1)
        if are_known:
            self._first, self._states = start + len(states) - 1, states[-1:].copy()
        elif before is None:
            self._first, self._states = start, states.copy()
        else:
            self._first, self._states = start - 1, np.concatenate([before[None], states])


class ShiftInputs:
    """What a step's program is told of the rows before its own."""

    def __init__(self, ops: Ops, tape: Recording, rows: Array, *, sequences: int, width: int) -> None:
        count = rows.shape[0]
        self.shift = Shift(
            tape.input(ops, "before", (count,), "i32"),
            tape.input(ops, "carried", (sequences, width), "f32"),
            tape.input(ops, "carried_places", (count,), "i32"),
        )

    def clear(self, inputs: Inputs) -> None:
        """Each row stands behind another."""
        inputs["before"][1:] = np.arange(len(inputs["before"]) - 1)
        inputs["carried_places"][:] = -1

    def fill(self, inputs: Inputs, row: int, number: int, state: Floats | None) -> None:
        """The sequence `number` begins at this row of the batch, behind a row of this state (None: nobody knows it)."""
        inputs["carried_places"][row] = number
        inputs["carried"][number] = 0 if state is None else state
