"""The engine: one thread owns the device; everybody else submits prompts and reads streams."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from opsin.engine.pages import PagePool, pages_for
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Scheduler
from opsin.engine.sequence import Piece, Sequence, Stream
from opsin.errors import DeviceError, OpsinError, RequestError
from opsin.ops.cpu import Stopped
from opsin.spans import Prompt

T = TypeVar("T")


class Pace:
    """How many rows a step may compute, so that it stays within its time while somebody streams."""

    def __init__(self, most: int, *, seconds: float = 0.1, least: int = 32) -> None:
        self._most, self._least, self._seconds = most, least, seconds
        self._a_row: float | None = None

    def rows(self, streaming: bool) -> int:
        """The budget of the next step. Alone, a prompt may take all that a step holds."""
        if not streaming or self._a_row is None:
            return self._most
        return max(self._least, min(self._most, int(self._seconds / self._a_row)))

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
        self._closing = False
        self.step_seconds: deque[float] = deque(maxlen=1 << 16)
        self._thread = threading.Thread(target=self._live, name="opsin-engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Rows that one sequence may have."""
        return min(self._runner.limits.context, self._pool.count * 64)

    def submit(self, prompt: Prompt, sampling: Sampling) -> Stream:
        """Start a sequence. Raises RequestError where it cannot fit."""
        if len(prompt) == 0:
            raise RequestError("the prompt is empty", hint="give at least one token")
        if len(prompt) >= self.context:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, the context {self.context}",
                hint="shorten it, or load the model with a larger context",
            )
        if sampling.max_tokens == 0:
            stream = Stream()
            stream.put(Piece(None, "length"))
            return stream
        sequence = Sequence(prompt, sampling, self._ends)
        sequence.stream._on_cancel = self._cancelled
        with self._wake:
            self._refuse_closed()
            self._incoming.append(sequence)
            self._wake.notify()
        return sequence.stream

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the engine's thread between two steps; for whoever needs the device."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to whoever called
                future.set_exception(error)

        with self._wake:
            self._refuse_closed()
            self._calls.append(run)
            self._wake.notify()
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

    def _refuse_closed(self) -> None:
        if self._closing:
            raise DeviceError("the model was closed", hint="load it again")

    def _cancelled(self) -> None:
        """A stream was cancelled: end the step early where nobody else waits for it."""
        with self._wake:
            if all(s.stream.cancelled for s in self._scheduler.running):
                self._runner.device.team.stop()
            self._wake.notify()

    def _live(self) -> None:
        while self._take_in():
            try:
                self._step()
            except Stopped:
                continue
            except OpsinError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - every stream must hear of it
                self._fail(DeviceError(f"the engine failed: {error!r}"))
        self._fail(DeviceError("the model was closed", hint="load it again"))

    def _take_in(self) -> bool:
        """Wait for something to do; take in new sequences and drop cancelled ones. False when closing."""
        with self._wake:
            while not (self._incoming or self._calls or self._closing or self._busy()):
                self._wake.wait()
            if self._closing:
                return False
            self._runner.device.team.resume()
            calls = list(self._calls)
            self._calls.clear()
            while self._incoming:
                self._scheduler.add(self._incoming.popleft())
        for run in calls:
            run()
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            if sequence.stream.cancelled:
                self._scheduler.remove(sequence)
                sequence.stream.put(Piece(None, "cancelled"))
        return True

    def _busy(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting)

    def _step(self) -> None:
        running = self._scheduler.running
        streaming = len(running) > 1 or any(s.generated for s in running)
        plan = self._scheduler.plan(self._pace.rows(streaming))
        if not plan:
            return
        start = time.perf_counter()
        logits, best = self._runner.step(plan)
        seconds = time.perf_counter() - start
        self._pace.saw(sum(part.rows for part in plan), seconds)
        self.step_seconds.append(seconds)
        place = 0
        for part in plan:
            sequence = part.sequence
            sequence.computed += part.rows
            if part.wanted:
                greedy = sequence.sampling.greedy
                chosen = int(best[place]) if greedy else sequence.sampler.choose(logits[place])
                place += 1
                if sequence.accept(chosen, self.context) is not None:
                    self._scheduler.remove(sequence)

    def _fail(self, error: OpsinError) -> None:
        """A step failed as a whole: all who took part hear why, and their pages are free."""
        with self._wake:
            while self._incoming:
                self._scheduler.add(self._incoming.popleft())
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            self._scheduler.remove(sequence)
            sequence.stream.put(Piece(None, "error", error))


