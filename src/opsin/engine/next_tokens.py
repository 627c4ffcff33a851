"""Guesses by a model's own layer for them (`nn.next_token`), over the pages that its steps write.

Before a step the layer is asked what follows the id that was drawn last, from the state behind which it was drawn; and
then what follows that, from its own state, as long as it is sure enough. What it leaves in the pages for ids that are
only guessed, the step writes over.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from opsin.arrays import Floats
from opsin.engine.drafting import SURE, Drafter
from opsin.engine.look_up import Guess
from opsin.engine.runner import Runner
from opsin.engine.sequence import Sequence
from opsin.engine.step_program import StepProgram
from opsin.models import Guesses
from opsin.ops import PAGE


@dataclass(frozen=True)
class _Row:
    """A row of the layer: an id of a sequence at its place, and the state [width] of the row before."""

    sequence: Sequence
    id: int
    place: int
    state: Floats


class _NextProgram(StepProgram):
    """One row of each sequence through the layer. It holds no media: what is guessed is text."""

    def __init__(self, runner: Runner) -> None:
        most = runner.limits.sequences
        super().__init__(runner.device, runner.decoder, replace(runner.limits, rows=most, outputs=most), None)
        ops, tape = self.device.record()
        batch = self._batch(ops, tape, runner.pages, {})
        states = tape.input(ops, "states", (batch.ids.shape[0], self.decoder.width), "f32")
        after, logits = cast(Guesses, self.decoder).guess(batch, states)
        ids, _, sums = ops.candidates(logits, 1)
        self.program = tape.finish({"after": after, "ids": ids, "sums": sums})

    def run(self, rows: list[_Row]) -> list[tuple[int, float, Floats]]:
        """The likeliest id behind each row, its chance, and a copy of the state [width] there."""
        self._clear()
        for number, row in enumerate(rows):
            sequence = row.sequence
            self._fill(number, number, sequence.rows, [row.id], row.place, sequence.pages, sequence.near)
            self.program.inputs["states"][number] = row.state
        self.program.inputs["first"][: len(rows)] = 1  # no row stands before a sequence's first
        self._run(rows=len(rows), outputs=0)
        ids, sums, after = (self.program.output(name) for name in ("ids", "sums", "after"))
        return [(int(ids[n, 0]), float(1 / sums[n]), cast(Floats, after[n].copy())) for n in range(len(rows))]


class NextTokens(Drafter):
    """Guesses by the layer that the runner's decoder has for it."""

    kind = "draft-mtp"

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._context, self._program = runner.limits.context, _NextProgram(runner)

    def _make(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[Guess]]:
        found: dict[Sequence, list[Guess]] = {sequence: [] for sequence in wanted}
        rows = [
            _Row(sequence, sequence.ids[-1], sequence.known - 1, state)
            for sequence in wanted
            if (state := sequence.trail.at(sequence.known - 2)) is not None
        ]
        while rows:
            with self.timed():
                made = self._program.run(rows)
            rows = [
                after
                for row, some in zip(rows, made, strict=True)
                if (after := self._guessed(row, *some, found[row.sequence], wanted[row.sequence])) is not None
            ]
        return found

    def _guessed(
        self, row: _Row, id: int, chance: float, after: Floats, guesses: list[Guess], most: int
    ) -> _Row | None:
        """Take one more guess; the row that asks for the next one, where one is wanted and its page is there."""
        sequence, place = row.sequence, row.place + 1
        if not chance > 0:  # no numbers: a damaged layer guesses nothing
            return None
        chance *= guesses[-1].chance if guesses else 1.0
        guesses.append(Guess(id, chance))
        is_room = place < min(len(sequence.pages) * PAGE, self._context)
        return _Row(sequence, id, place, after) if len(guesses) < most and chance > SURE and is_room else None
