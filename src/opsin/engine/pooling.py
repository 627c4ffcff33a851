"""States of whole prompts, pooled into embeddings, beside whatever else runs.

A step takes rows of many prompts, whoever asked for them, in the order in which they came. Pages are borrowed for as
long as a prompt is computed; nothing is kept for others, and no prefix is looked up: pooling asks for all rows.

Thread: `Pooler.pool` is anybody's; what needs the device runs on the engine's, between two steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np

from opsin.arrays import Floats
from opsin.engine.engine import Engine
from opsin.engine.prompt_checks import PromptChecks
from opsin.engine.room import Room
from opsin.engine.rows import PromptRows
from opsin.engine.runner import Runner
from opsin.engine.scoring import LOOK_AGAIN_SECONDS
from opsin.engine.step_program import StepProgram
from opsin.errors import ContextError, DeviceError, FileError, OpsinError, RequestError, known
from opsin.nn.dense import DenseHead
from opsin.ops.device import Stopped
from opsin.spans import MediaSpan, Prompt

Pooling = Literal["mean", "cls", "last", "none"]


@dataclass(eq=False)
class _Text:
    """A prompt whose first `done` rows are computed, and what was pooled of them."""

    rows: PromptRows
    pooling: Pooling
    done: int = 0
    room: Room | None = None
    reads: int = -1  # the slot of its state, where the model has any
    sums: Floats | None = None
    found: list[Floats] = field(default_factory=list)
    error: OpsinError | None = None

    @property
    def writes(self) -> int:
        """The slot of its next state."""
        return -1 if self.room is None else next((slot for slot in self.room.states if slot != self.reads), -1)

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.done == self.rows.count

    def take(self, states: Floats) -> None:
        """Its next rows [rows, width]. Raises FileError where they are no numbers."""
        if not np.isfinite(states).all():
            raise FileError("the model gave states that are no numbers", hint="the file is damaged, or overflows")
        if self.pooling == "none":
            self.found.append(states.copy())
        elif self.pooling == "last":
            self.found = [states[-1].copy()]
        elif self.pooling == "cls":
            self.found = self.found or [states[0].copy()]
        else:  # row by row, so that steps make no difference
            before = np.zeros((1, states.shape[1])) if self.sums is None else self.sums
            self.sums = np.concatenate([before, states], dtype=np.float64).sum(axis=0, keepdims=True)
        self.done += len(states)
        self.reads = self.writes

    @property
    def pooled(self) -> Floats:
        """[width], or [rows, width] where nothing is pooled."""
        if self.error is not None:
            raise self.error
        if self.sums is not None:
            return cast(Floats, (self.sums[0] / self.done).astype(np.float32))
        return np.concatenate(self.found) if self.pooling == "none" else self.found[0]


class _HiddenProgram(StepProgram):
    """States after the last norm of all rows of a step, over the cache of a runner."""

    def __init__(self, runner: Runner) -> None:
        limits = replace(runner.limits, outputs=runner.limits.rows)
        super().__init__(runner.device, runner.decoder, limits, runner.media)
        ops, tape = self.device.record()
        hidden = self.decoder.hidden(self._batch(ops, tape, runner.pages, runner.states))
        self.program = tape.finish({"hidden": hidden})
        self.program.inputs["outputs"][:] = np.arange(limits.rows)

    def run(self, parts: Sequence[tuple[_Text, int]]) -> Floats:
        """States [rows, width] of so many further rows of texts, one after another. They hold until the next run."""
        row = 0
        self._clear()
        for number, (text, count) in enumerate(parts):
            assert text.room is not None
            rows, start, room = text.rows, text.done, text.room
            if start == 0:
                self._write_memory(rows.divide(room.memory))
            self._fill(row, number, rows, rows.ids[start : start + count], start, room.pages, room.near)
            self._fill_memory(row, number, rows, range(start, start + count), room.memory)
            self._fill_states(range(row, row + count), text.reads, text.writes)
            row += count
        self._run(rows=row, outputs=row)
        return cast(Floats, self.program.output("hidden")[:row])


class Pooler:
    """Embeddings of prompts of one model. From any thread.

    Args:
        dense: what stands behind a pooled embedding, where the file has it.
    """

    def __init__(self, engine: Engine, runner: Runner, dense: DenseHead | None = None) -> None:
        self._engine, self._runner, self._dense = engine, runner, dense
        self._checks = PromptChecks(runner, engine.memory, takes_media=runner.media is not None)
        self._program: _HiddenProgram | None = None  # recorded when it is first needed
        self._coming: deque[_Text] = deque()
        self._begun: list[_Text] = []  # that hold room; the engine's thread's

    @property
    def width(self) -> int:
        """Of what is pooled."""
        return self._runner.decoder.width if self._dense is None else self._dense.width

    def pool(
        self, prompts: Sequence[Prompt], pooling: Pooling, *, check: Callable[[], None] = lambda: None
    ) -> list[Floats]:
        """Of each prompt the mean, first or last of its rows' states, or all [rows, states]: not normalised.

        What is pooled goes through the matrices behind the model, where it has any: [width].

        Others' steps run in between. `check` is called now and then: what it raises ends the work.
        """
        for prompt in prompts:
            self._checks.check(prompt)
            self._check_length(len(prompt))
        axes = self._runner.decoder.axes
        texts = [_Text(PromptRows(prompt, axes), pooling) for prompt in prompts]
        self._work([text for text in texts if not text.rows.media], check)
        for prompt, text in zip(prompts, texts, strict=True):
            if text.rows.media:  # one by one, so that what they need stays
                self._engine.embed(span for span in prompt.spans if isinstance(span, MediaSpan))
                self._work([text], check)
        pooled = [text.pooled for text in texts]
        dense = self._dense
        if dense is None or pooling == "none" or not pooled:
            return pooled
        constant = self._runner.device.eager().constant
        return [*self._engine.call(lambda: dense(constant(np.stack(pooled))))]

    def _check_length(self, tokens: int) -> None:
        most = self._engine.context
        if tokens > most:
            raise ContextError(
                f"the input ({tokens} tokens) is too large: it exceeds the available context size ({most} tokens)",
                hint="send it in parts", prompt_tokens=tokens, context_tokens=most,
            )  # fmt: skip

    def _work(self, texts: Sequence[_Text], check: Callable[[], None]) -> None:
        """Until all of them are over."""
        try:
            self._coming.extend(texts)
            while not all(text.is_over for text in texts):
                check()
                if not self._engine.call(self._step):
                    time.sleep(LOOK_AGAIN_SECONDS)
        except BaseException:
            with suppress(DeviceError):  # the engine has ended, and nothing is held
                self._engine.call(lambda: self._drop(texts))
            raise

    def _step(self) -> bool:
        """Compute some rows of those who wait; False where there was room for none."""
        parts = self._plan()
        if not parts:
            return not self._begun and not self._coming
        try:
            self._program = self._program or _HiddenProgram(self._runner)
            states = self._program.run(parts)
            self._engine.watch.saw(len(parts))
        except Stopped:  # somebody went away; the others go on from what their pages hold
            raise
        except Exception as error:  # noqa: BLE001 - all of the step hear of it
            for text, _ in parts:
                self._end(text, known(error, "the states could not be computed"))
            return True
        row = 0
        for text, count in parts:
            try:
                text.take(states[row : row + count])
            except FileError as error:
                text.error = error
            row += count
            if text.is_over:
                self._end(text, text.error)
        return True

    def _plan(self) -> list[tuple[_Text, int]]:
        """Texts of the next step, and how many rows of each."""
        limits, parts = self._runner.limits, list[tuple[_Text, int]]()
        budget, space = self._engine.rows_between(), limits.rows
        for text in self._next():
            end = text.rows.uncut(text.done, min(text.done + budget, text.rows.count))
            end = text.rows.count if self._runner.is_bidirectional else end
            count = end - text.done
            if not 0 < count <= space or not self._reaches(text, end):
                break
            parts.append((text, count))
            budget, space = budget - count, space - count
            if budget <= 0 or len(parts) == limits.sequences:
                break
        return parts

    def _reaches(self, text: _Text, end: int) -> bool:
        """Whether there are places for windows of its next rows."""
        room = text.room
        return room is None or self._engine.windows.hold(room.near, room.pages, text.done, end)

    def _next(self) -> Iterator[_Text]:
        """Those who hold room, then those who get some now."""
        yield from self._begun[:]
        while self._coming:
            text = self._coming[0]
            if not text.is_over and (lost := self._lost(text)) is not None:
                text.error = lost
            if not text.is_over:
                try:
                    text.room = Room.of(self._engine, text.rows)
                except RequestError:  # there is none now
                    return
                self._begun.append(text)
            self._coming.popleft()
            if not text.is_over:
                yield text

    def _lost(self, text: _Text) -> RequestError | None:
        """What to say where embeddings of its pictures have made room for others'."""
        store = self._runner.media
        if store is None or all(placed.span.digest in store for placed in text.rows.media):
            return None
        return RequestError("the pictures of this prompt are not kept", hint="give fewer, or smaller ones")

    def _drop(self, texts: Sequence[_Text]) -> None:
        """Nobody wants these any more."""
        for text in texts:
            if not text.is_over:
                self._end(text, RequestError("nobody waits for this any more"))

    def _end(self, text: _Text, error: OpsinError | None) -> None:
        text.error = error
        if text.room is not None:
            text.room.give_back(self._engine)
            text.room = None
            self._begun.remove(text)
