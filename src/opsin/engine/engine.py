"""The engine: one thread owns the device; everybody else submits prompts and reads streams."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from opsin.engine.pages import PagePool, pages_for
from opsin.engine.runner import Runner
from opsin.engine.sampling import Floats, Sampling
from opsin.engine.scheduler import Plan, Scheduler
from opsin.engine.sequence import LOOK_UP_SECONDS, Piece, Sequence, Stream
from opsin.errors import DeviceError, OpsinError, RequestError
from opsin.ops import PAGE
from opsin.ops.cpu import Stopped
from opsin.spans import Prompt, TextSpan

T = TypeVar("T")


class Pace:
    """How many rows a step may compute, so that it stays within its time while somebody streams."""

    def __init__(self, most: int, *, seconds: float = 0.1, least: int = 32) -> None:
        self._most, self._least, self._seconds = most, least, seconds
        self._a_row: float | None = None

    def rows(self, streaming: bool, ready: int = 0) -> int:
        """The budget of the next step: room for `ready` rows of those who stream, and some for prompts.

        Alone, a prompt may take all that a step holds.
        """
        if not streaming or self._a_row is None:
            return self._most
        return min(self._most, max(self._least + ready, int(self._seconds / self._a_row)))

    def saw(self, rows: int, seconds: float) -> None:
        """Learn from a step that computed many rows."""
        if rows >= self._least:
            now = seconds / rows
            self._a_row = now if self._a_row is None else 0.7 * self._a_row + 0.3 * now


class Engine:
    """Submits go in, streams come out. Close it when done."""

    def __init__(self, runner: Runner, ends: frozenset[int]) -> None:
        self._runner, self._ends = runner, ends
        self._pool = PagePool(runner.limits.pages)
        self._scheduler = Scheduler(self._pool, sequences=runner.limits.sequences)
        self._pace = Pace(runner.limits.rows)
        self._wake = threading.Condition()
        self._incoming: deque[Sequence] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._computing: list[Sequence] = []  # those of the step that runs now
        self._closing = False
        self.step_seconds: deque[float] = deque(maxlen=1 << 16)
        self._thread = threading.Thread(target=self._live, name="opsin-engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Rows that one sequence may have."""
        return min(self._runner.limits.context, self._pool.count * PAGE)

    def submit(self, prompt: Prompt, sampling: Sampling) -> Stream:
        """Start a sequence. Raises RequestError where it cannot fit."""
        self._check(prompt)
        sequence = Sequence(prompt, sampling, self._ends)
        sequence.stream._on_cancel = self._cancelled
        with self._wake:
            self._refuse_closed()
            if sampling.max_tokens == 0:
                sequence.stream.put(Piece(None, "length"))
                return sequence.stream
            self._incoming.append(sequence)
            self._wake.notify()
        return sequence.stream

    def _check(self, prompt: Prompt) -> None:
        """Refuse what would fail in a step, where it would be everybody's failure."""
        if len(prompt) == 0:
            raise RequestError("the prompt is empty", hint="give at least one token")
        if len(prompt) >= self.context:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, the context {self.context}",
                hint="shorten it, or load the model with a larger context",
            )
        vocabulary = self._runner.decoder.vocabulary
        for span in prompt.spans:
            if not isinstance(span, TextSpan):
                raise RequestError("the prompt holds media", hint="this model takes text only")
            wrong = next((i for i in span.ids if not 0 <= i < vocabulary), None)
            if wrong is not None:
                raise RequestError(f"id {wrong} lies outside the vocabulary of {vocabulary}")

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the engine's thread between two steps; for whoever needs the device."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                self._refuse_closed()
                future.set_result(function())
            except Stopped:
                future.set_exception(_closed())
            except BaseException as error:  # noqa: BLE001 - handed to whoever called
                future.set_exception(error)

        with self._wake:
            self._refuse_closed()
            self._calls.append(run)
            self._wake.notify()
        while not future.done():
            wait([future], timeout=LOOK_UP_SECONDS)
        return future.result()

    def borrow_pages(self, rows: int) -> list[int]:
        """Pages for a job on the engine's thread (inside `call`); give them back there."""
        pages = self._pool.take(pages_for(rows))
        if pages is None:
            raise RequestError(f"{rows} rows do not fit in the cache now", hint="load with a larger context")
        return pages

    def return_pages(self, pages: list[int]) -> None:
        self._pool.give_back(pages)

    def close(self) -> None:
        """End all streams and the thread."""
        with self._wake:
            self._closing = True
            self._runner.device.team.stop()
            self._wake.notify()
        self._thread.join()
        self._runner.device.team.resume()

    def _refuse_closed(self) -> None:
        if self._closing:
            raise _closed()

    def _cancelled(self) -> None:
        """A stream was cancelled: end the step early where nobody else waits for it."""
        with self._wake:
            if self._computing and all(s.stream.cancelled for s in self._computing):
                self._runner.device.team.stop()
            self._wake.notify()

    def _live(self) -> None:
        while self._take_in():
            try:
                self._drop_cancelled()
                self._step()
            except Exception as error:  # noqa: BLE001 - every stream must hear of it
                self._fail(self._everybody(), error)
        self._fail(self._everybody(), _closed())
        while self._calls:
            self._calls.popleft()()

    def _take_in(self) -> bool:
        """Wait for something to do; take in new sequences and do calls. False when closing."""
        with self._wake:
            while not (self._incoming or self._calls or self._closing or self._everybody()):
                self._wake.wait()
            if self._closing:
                return False
            calls = list(self._calls)
            self._calls.clear()
            while self._incoming:
                self._scheduler.add(self._incoming.popleft())
        for run in calls:
            run()
        return True

    def _everybody(self) -> list[Sequence]:
        with self._wake:
            return [*self._scheduler.running, *self._scheduler.waiting, *self._incoming]

    def _drop_cancelled(self) -> None:
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            if sequence.stream.cancelled:
                self._scheduler.remove(sequence)
                sequence.stream.put(Piece(None, "cancelled"))

    def _step(self) -> None:
        running = self._scheduler.running
        streaming = len(running) > 1 or any(s.generated for s in running)
        ready = sum(s.waiting_rows == 1 for s in running)
        plan = self._scheduler.plan(self._pace.rows(streaming, ready))
        if not plan:
            return
        start = time.perf_counter()
        try:
            logits, best = self._run(plan)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - those who took part must hear of it, the others go on
            self._fail([part.sequence for part in plan], error)
            return
        seconds = time.perf_counter() - start
        self._pace.saw(sum(part.rows for part in plan), seconds)
        self.step_seconds.append(seconds)
        place = 0
        for part in plan:
            part.sequence.computed += part.rows
            if part.wanted:
                self._accept(part.sequence, logits[place], int(best[place]))
                place += 1

    def _run(self, plan: Plan) -> tuple[Floats, npt.NDArray[np.int32]]:
        """A step, which `_cancelled` may stop; a stop never outlives it, but when closing."""
        with self._wake:
            self._computing = [part.sequence for part in plan]
            if all(s.stream.cancelled for s in self._computing):
                raise Stopped
        try:
            return self._runner.step(plan)
        finally:
            with self._wake:
                self._computing = []
                if not self._closing:
                    self._runner.device.team.resume()

    def _accept(self, sequence: Sequence, logits: Floats, best: int) -> None:
        """Choose the next id of one sequence. What goes wrong here is its own failure."""
        try:
            if sequence.accept(sequence.sampler.choose(logits, best), self.context) is not None:
                self._scheduler.remove(sequence)
        except Exception as error:  # noqa: BLE001 - its stream hears of it
            self._fail([sequence], error)

    def _fail(self, sequences: Iterable[Sequence], error: Exception) -> None:
        """These sequences end with an error, and their pages are free."""
        known = error if isinstance(error, OpsinError) else DeviceError(f"the engine failed: {error!r}")
        for sequence in sequences:
            with self._wake:
                if sequence in self._incoming:
                    self._incoming.remove(sequence)
            self._scheduler.remove(sequence)
            sequence.stream.put(Piece(None, "error", known))


def _closed() -> DeviceError:
    return DeviceError("the model was closed", hint="load it again")
