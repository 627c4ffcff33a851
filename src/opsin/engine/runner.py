"""Runs steps on the device: a plan becomes a flat batch, the recorded program gives logits.

Thread: the loader's makes it, afterwards only the engine's touches it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.engine.candidates import CANDIDATES, Candidates
from opsin.engine.media_store import MediaStore
from opsin.engine.rows import PromptRows
from opsin.engine.scheduler import Plan
from opsin.engine.step_program import Limits, StepProgram
from opsin.engine.trails import ShiftInputs
from opsin.engine.windows import Held, Reach, WindowPlaces, is_near, reaching
from opsin.errors import RequestError
from opsin.models import Decoder, Guesses
from opsin.nn.batch import MEMORY
from opsin.ops import Array, Ops, Pages, PageType
from opsin.ops.device import Device, Recording
from opsin.ops.recurrence import States
from opsin.spans import Prompt

__all__ = ["Limits", "Runner"]


class Runner(StepProgram):
    """One decoder, one cache, one recorded program for every step. It lives on the engine's thread.

    Args:
        media: where embeddings of media are found; None for a model of text, whose program has no place for them.

    Attributes:
        writes: whether the model gives logits; others make embeddings alone, and have no program for steps.
    """

    def __init__(
        self, device: Device, decoder: Decoder, limits: Limits, kind: PageType, media: MediaStore | None = None
    ) -> None:
        super().__init__(device, decoder, limits, media)
        ops, tape = device.record()
        self.pages: dict[str, Pages] = {
            name: ops.pages(
                layers=s.layers,
                heads=s.heads,
                width=s.width,
                kind=kind,
                count=limits.memory if name == MEMORY else self.places if is_near(s) else limits.pages,
            )
            for name, s in decoder.groups.items()
        }
        self.states: dict[str, States] = {
            name: ops.states(layers=s.layers, shape=s.shape, count=limits.states) for name, s in decoder.states.items()
        }
        self._most = min(CANDIDATES, self.vocabulary)
        self.writes = self.vocabulary > 0
        self._shifts: ShiftInputs | None = None
        if self.writes:
            logits, kept = self._forward(ops, tape)
            ids, values, sums = ops.candidates(logits, tape.count("candidates", self._most))
            self.program = tape.finish({"logits": logits, "ids": ids, "values": values, "sums": sums, **kept})

    def _forward(self, ops: Ops, tape: Recording) -> tuple[Array, dict[str, Array]]:
        """Logits of a step, and what else it gives: states of all rows, where these are guessed from."""
        decoder, batch = self.decoder, self._batch(ops, tape, self.pages, self.states)
        if not decoder.guesses:
            return decoder.forward(batch), {}
        self._shifts = ShiftInputs(ops, tape, batch.ids, sequences=self.limits.sequences, width=decoder.width)
        guessing = cast(Guesses, decoder)
        states = guessing.every(replace(batch, shift=self._shifts.shift))
        return guessing.logits(ops.take(states, batch.outputs)), {"states": states}

    def check_writes(self) -> None:
        """Raises RequestError where it does not."""
        if not self.writes:
            raise RequestError("this model makes embeddings, and writes nothing", hint="ask for embeddings")

    @property
    def is_bidirectional(self) -> bool:
        """Whether rows see what is ahead of them, so that a text is computed in one step."""
        return bool(self._ahead)

    @property
    def cache_bytes(self) -> int:
        return sum(pages.bytes for pages in self.pages.values())

    @property
    def state_bytes(self) -> int:
        """Memory of all slots for recurrent states."""
        return sum(states.bytes for states in self.states.values())

    def step(self, plan: Plan) -> Candidates:
        """Candidates of the slices that want an id, in order: as many as serve all of them best.

        A slice with guesses has a row for its next id, and one for the id after each guess. They hold until the next
        step. Raises as `Recorded.run`; then nothing counts as computed.
        """
        row, outputs, most = 0, list[int](), 1
        self._clear()
        starts = list[int]()  # of the parts
        for number, part in enumerate(plan):
            starts.append(row)
            sequence, end = part.sequence, part.start + part.rows + len(part.guesses)
            if part.writes:
                self._write_memory(sequence.memory.unfilled, sequence.memory.written, part.writes)
            if not part.rows:
                continue
            ids = [*sequence.ids[part.start : part.start + part.rows], *part.guesses]
            self._fill(row, number, sequence.rows, ids, part.start, sequence.pages, sequence.near)
            self._fill_memory(row, number, sequence.rows, range(part.start, end), sequence.memory.pages)
            self._fill_states(range(row, row + len(ids)), sequence.state.begin, sequence.state.written)
            if self._shifts is not None:
                self._shifts.fill(self.program.inputs, row, number, sequence.trail.at(part.start - 1))
            row += len(ids)
            if part.wanted:
                outputs += range(row - 1 - len(part.guesses), row)
                if (wanted := sequence.candidates) > most:
                    most = min(wanted, self._most)
        if row:
            self.program.inputs["outputs"][: len(outputs)] = outputs
            self._run(rows=row, outputs=len(outputs), candidates=most)
            self._leave_trails(plan, starts)
        return self._candidates(len(outputs), most)

    def _leave_trails(self, plan: Plan, starts: Sequence[int]) -> None:
        """Sequences keep the states of their last rows, where they are guessed from."""
        if self._shifts is None:
            return
        states = cast(Floats, self.program.output("states"))
        for part, first in zip(plan, starts, strict=True):
            if part.rows:
                rows = states[first : first + part.rows + len(part.guesses)]
                part.sequence.trail.put(part.start, rows, are_known=not part.guesses)

    def _clear(self) -> None:
        super()._clear()
        if self._shifts is not None:
            self._shifts.clear(self.program.inputs)

    def score(
        self, prompt: Prompt | Sequence[int], pages: list[int], sizes: Sequence[int] = (), *,
        memory: list[int] | None = None, states: Sequence[int] = (), reach: Reach | None = None,
    ) -> Floats:  # fmt: skip
        """Logits [rows, vocabulary] after each row of a prompt or of ids, in a sequence of its own on `pages`.

        All its media must be in the store; `memory` are pages for what it remembers, `states` two slots. `reach` gives
        places for windows; None where nobody else has any. `sizes` are rows of the first steps.
        """
        result, row = np.empty((len(prompt), self.vocabulary), np.float32), 0
        for part in self.scoring(prompt, pages, sizes, memory=memory, states=states, reach=reach):
            result[row : row + len(part)] = part
            row += len(part)
        return result

    def scoring(
        self, prompt: Prompt | Sequence[int], pages: list[int], sizes: Sequence[int] = (), *,
        memory: list[int] | None = None, states: Sequence[int] = (), reach: Reach | None = None,
    ) -> Iterator[Floats]:  # fmt: skip
        """The same in parts, one after another. Other steps may run between two of them."""
        self.check_writes()
        rows = PromptRows(prompt if isinstance(prompt, Prompt) else Prompt.of([prompt]), self.decoder.axes)
        self._write_memory(rows.divide(memory or []))
        reads, writes, other = -1, *(states or (-1, -1))
        reach = reach or reaching(WindowPlaces(self.window, self.places), Held(), pages)
        for start, end in _chunks(rows, [*sizes], min(self.limits.outputs, self.limits.rows)):
            self._clear()
            self._fill(0, 0, rows, rows.ids[start:end], start, pages, reach(start, end))
            self._fill_memory(0, 0, rows, range(start, end), memory or [])
            self._fill_states(range(end - start), reads, writes)
            if self._shifts is not None:
                self._shifts.fill(self.program.inputs, 0, 0, None)
            part = np.empty((end - start, self.vocabulary), np.float32)
            # Rows that belong together may be more than outputs: they are computed again, to the same bits.
            for first in range(start, end, self.limits.outputs):
                wanted = min(self.limits.outputs, end - first)
                self.program.inputs["outputs"][:wanted] = np.arange(first - start, first - start + wanted)
                self._run(rows=end - start, outputs=wanted, candidates=1)
                part[first - start : first - start + wanted] = self._logits(wanted)
            yield part
            reads, writes, other = writes, other, writes

    def _candidates(self, outputs: int, most: int) -> Candidates:
        ids, logits, sums = (self.program.output(name)[:outputs] for name in ("ids", "values", "sums"))
        whole = functools.partial(self._logits, outputs)
        return Candidates(cast(Ints, ids[:, :most]), cast(Floats, logits[:, :most]), cast(Floats, sums), whole)

    def _logits(self, outputs: int) -> Floats:
        """All logits [outputs, vocabulary] of the step before."""
        return cast(Floats, self.program.output("logits")[:outputs])


def _chunks(rows: PromptRows, sizes: list[int], size: int) -> Iterator[tuple[int, int]]:
    """Rows in chunks of `sizes`, then of `size`, but where rows that see each other need a larger one."""
    start = 0
    while start < rows.count:
        end = min(start + (sizes.pop(0) if sizes else size), rows.count)
        end = rows.uncut(start, end)
        yield start, end
        start = end
