"""The engine: one thread owns the device; everybody else submits prompts and reads streams.

Thread: public methods are anybody's and take the lock; from `_live` on all is the engine's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from opsin.arrays import Floats
from opsin.engine.candidates import Candidates
from opsin.engine.constraint import Constraint
from opsin.engine.drawing import Drawing
from opsin.engine.encoding import Encodes, Turn
from opsin.engine.guessing import Guesser, Guessing
from opsin.engine.masks import Masks, MaskWork
from opsin.engine.media_work import EmbedRequest, MediaWork
from opsin.engine.memory import MemoryPages
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.prompt_checks import PromptChecks
from opsin.engine.reply import Call, Reply
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.engine.scheduler import Plan, Scheduler
from opsin.engine.sequence import LOOK_UP_SECONDS, Sequence, Stream, TokenOutput
from opsin.engine.states import StateSlots
from opsin.engine.step_budget import StepBudget
from opsin.engine.token_rules import TokenRules
from opsin.engine.watch import EngineWatch
from opsin.engine.windows import WindowPlaces
from opsin.errors import DeviceError, RequestError, known
from opsin.ops import PAGE
from opsin.ops.device import Stopped
from opsin.process import Stays
from opsin.spans import MediaSpan, Prompt, check_context

T = TypeVar("T")
_FAILED = "the engine failed"
ENCODING_SECONDS = 0.05  # that pictures may take between two steps while somebody streams


class Engine(Stays):
    """Submits go in, streams come out. Close it when done. From any thread, but none of a forked child.

    Args:
        runner: runs steps.
        ends: ids that end an answer.
        load: makes the encoder when it is first needed, for a runner with a place for media.
        guessing: how what comes next is guessed; None for not at all.
    """

    def __init__(
        self, runner: Runner, ends: frozenset[int], load: Callable[[Turn], Encodes] | None = None,
        guessing: Guessing | None = None,
    ) -> None:  # fmt: skip
        self._runner, self._ends, self._home = runner, ends, runner.device.home
        limits, store = runner.limits, runner.media
        assert (store is None) == (load is None), "an encoder needs a place for what it makes"
        self._media = (
            MediaWork(store, load, runner.device.eager().constant) if store is not None and load is not None else None
        )
        self.context = min(limits.context, limits.pages * PAGE)  # rows that one sequence may have
        self.pool, self.memory = PagePool(limits.pages), MemoryPages(limits.memory)
        self.states = StateSlots(limits.states) if runner.decoder.states else None
        self.windows = WindowPlaces(runner.window, runner.places)
        self._scheduler = Scheduler(
            self.pool, sequences=limits.sequences, rows=limits.rows,
            ready=lambda span: store is not None and span.digest in store, memory=self.memory, states=self.states,
            windows=self.windows,
        )  # fmt: skip
        self._checks = PromptChecks(runner, self.memory, takes_media=self._media is not None)
        self._masks = MaskWork()
        self.guessing = guessing
        self._guesser = (
            Guesser(self._scheduler, guessing, limits=limits, context=self.context) if guessing is not None else None
        )
        self._budget = StepBudget(runner.limits.rows)
        # Callers take the lock itself: Ctrl-C inside a Condition's own Python code would leave it taken for ever.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._incoming: deque[Sequence] = deque()
        self._calls: deque[Call] = deque()
        self._calling: Call | None = None  # the one that runs now
        self._computing: list[Sequence] = []  # those of the step that runs now
        self._closing = False
        self.step_seconds: deque[float] = deque(maxlen=1 << 16)
        self.step_rows: deque[int] = deque(maxlen=1 << 16)  # of the same steps
        self.watch = EngineWatch(self._scheduler, self._media)
        self._drawing = Drawing(self._scheduler, self._masks, self.watch, self.context)
        self._thread = threading.Thread(target=self._live, name="opsin-engine", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # the system gives no more threads
            if self._media is not None:
                self._media.close(_closed())
            raise

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self, prompt: Prompt, sampling: Sampling, *, constraint: Constraint | None = None, progress: bool = False,
        rules: TokenRules | None = None,
    ) -> Stream:  # fmt: skip
        """Start a sequence, held to a form by a constraint of its own; `progress`: its stream tells of the prompt too.

        `rules` are what the sampling's options come to, where there are texts among them.
        Raises RequestError where it cannot fit, DeviceError once closed or after a fork.
        """
        self._home.check()
        self._runner.check_writes()
        check_context(len(prompt), self.context)
        self._checks.check(prompt)
        vocabulary = self._runner.vocabulary
        rules = rules if rules is not None else TokenRules.of(sampling, vocabulary=vocabulary)
        sequence = Sequence(
            prompt, sampling, self._ends, self._runner.decoder.axes, constraint, progress=progress, rules=rules,
            vocabulary=vocabulary, guessed=self._guesser is not None,
        )  # fmt: skip
        sequence.stream.belong(self._thread, self._cancelled)
        with self._lock:
            self._refuse_closed()
            if sampling.max_tokens == 0:
                sequence.stream.put(TokenOutput(None, "length"))
                return sequence.stream
            try:
                self._incoming.append(sequence)
                self._rouse()
            except BaseException:  # Ctrl-C: nobody will have the stream
                sequence.stream.cancel()
                raise
        return sequence.stream

    def embed(self, spans: Iterable[MediaSpan]) -> Floats:
        """Embeddings [rows, width] of media, one after another. Waits until they are made."""
        self._home.check()
        request = EmbedRequest(tuple(spans), Reply())
        for span in request.spans:
            self._checks.check_media(span)
        assert request.spans
        assert self._media is not None
        try:
            with self._lock:
                self._refuse_closed()
                self._media.requests.append(request)
                self._rouse()
            return self._result(request.reply)
        except BaseException:  # such as Ctrl-C
            with self._lock:
                request.abandoned = True
                self._rouse()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the engine's thread between two steps; for whoever needs the device.

        Where the caller is interrupted, as by Ctrl-C, the function ends at its next operation.
        """
        self._home.check()
        reply: Reply[T] = Reply()

        def run() -> None:
            try:
                self._refuse_closed()
                reply.give(function())
            except Stopped:
                reply.fail(_closed())
            except BaseException as error:  # noqa: BLE001 - handed to whoever called
                reply.fail(error)

        call = Call(run)
        try:
            with self._lock:
                self._refuse_closed()
                self._calls.append(call)
                self._rouse()
            return self._result(reply)
        except BaseException:  # also what the function raised: then nothing runs any more
            with self._lock:
                call.abandoned = True
                if self._calling is call:
                    self._runner.device.stop()
            raise

    def _do(self, call: Call) -> None:
        """Run what somebody waits for; a stop never outlives it, but when closing."""
        with self._lock:
            if call.abandoned:
                return
            self._calling = call
        try:
            call.run()
        finally:
            with self._lock:
                self._calling = None
                if not self._closing:
                    self._runner.device.resume()

    def borrow_pages(self, rows: int) -> list[int]:
        """Pages for a job on the engine's thread (inside `call`); give them back there."""
        self._home.check()
        pages = self.pool.take(pages_for(rows))
        if pages is None:
            raise RequestError(f"{rows} tokens do not fit in the cache now", hint="load with a larger context")
        return pages

    def rows_between(self) -> int:
        """Rows that a job on the engine's thread may compute at once: fewer while somebody streams."""
        return self._budget.rows(any(sequence.generated for sequence in self._scheduler.running))

    def return_pages(self, pages: list[int]) -> None:
        self.pool.give_back(pages)

    def close(self) -> None:
        """End all streams and the thread. A forked child has none to end."""
        if self._home.is_left:
            return
        self._refuse_itself()
        with self._lock:
            self._closing = True
            self._runner.device.stop()
            self._rouse()
        self._thread.join()
        self._runner.device.resume()

    def _refuse_closed(self) -> None:
        if self._closing:
            raise _closed()

    def _refuse_itself(self) -> None:
        """Its own thread would wait for ever."""
        if threading.current_thread() is self._thread:
            raise RequestError("the engine cannot wait for itself", hint="ask from outside of edits and calls")

    def _rouse(self) -> None:
        """The engine's thread shall look soon, also where it waits for pictures."""
        self._wake.notify()
        if self._media is not None:
            self._media.hurry()

    def _cancelled(self) -> None:
        """A stream was cancelled: end the step early where nobody else waits for it."""
        with self._lock:
            if self._computing and all(s.stream.cancelled for s in self._computing):
                self._runner.device.stop()
            self._rouse()

    def _live(self) -> None:
        while self._take_in():
            try:
                self._drop_cancelled()
                self._step()
            except Exception as error:  # noqa: BLE001 - every stream must hear of it
                self._fail(self._everybody(), error)
                if self._media is not None:
                    self._media.fail(known(error, _FAILED))
        self._fail(self._everybody(), _closed())
        self._masks.close()
        if self._media is not None:
            self._media.close(_closed())
        while self._calls:
            self._do(self._calls.popleft())

    def _take_in(self) -> bool:
        """Wait for something to do; take in new sequences and do calls. False when closing."""
        with self._lock:
            while not (self._incoming or self._calls or self._closing or self._everybody() or self._is_encoding):
                self._wake.wait()
            if self._closing:
                return False
            calls = list(self._calls)
            self._calls.clear()
            while self._incoming:
                self._scheduler.add(self._incoming.popleft())
        for call in calls:
            self._do(call)
        return True

    @property
    def _is_encoding(self) -> bool:
        return self._media is not None and self._media.is_busy

    def _everybody(self) -> list[Sequence]:
        with self._lock:
            return [*self._scheduler.running, *self._scheduler.waiting, *self._incoming]

    def _drop_cancelled(self) -> None:
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            if sequence.stream.cancelled:
                self._scheduler.remove(sequence)
                sequence.stream.put(TokenOutput(None, "cancelled"))

    def _step(self) -> None:
        running = self._scheduler.running
        streaming = len(running) > 1 or any(s.generated for s in running)
        ready = sum(s.waiting_rows for s in running if s.is_ready)
        plan = self._scheduler.plan(self._budget.rows(streaming, ready))
        start = time.perf_counter()
        if plan:
            self._compute(plan)
        if self._guesser is not None:
            self._guesser.keep()
        if self._media is not None:
            self._encode(self._media, time.perf_counter() - start if plan else None)

    def _encode(self, media: MediaWork, step: float | None) -> None:
        """Begin what is to be encoded, and let it go on for a while; `step` is how long a step took, if there was one.

        Where nobody streams yet, pictures get as much time as the prompts of others.
        """
        streaming = any(s.generated for s in self._scheduler.running)
        media.plan(self._scheduler, streaming=streaming)
        seconds = LOOK_UP_SECONDS if step is None else ENCODING_SECONDS if streaming else max(ENCODING_SECONDS, step)
        for digest, error in media.let(self._scheduler, seconds, wait=step is None).items():
            hit = [s for s in self._everybody() if any(span.digest == digest for p in s.lacking for span in p.whole)]
            self._fail(hit, error)

    def _compute(self, plan: Plan) -> None:
        try:
            plan = plan if self._guesser is None else self._guesser.extend(plan)
            start = time.perf_counter()
            candidates, masks = self._run(plan)
            seconds = time.perf_counter() - start
            rows = sum(part.rows + len(part.guesses) for part in plan)
            self.step_rows.append(rows)
            self.step_seconds.append(seconds)
            self.watch.saw(len(plan))
            failures = self._drawing.take(plan, candidates, masks)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - those who took part must hear of it, the others go on
            self._fail([part.sequence for part in plan], error)
            return
        self._budget.saw(rows, seconds)
        for sequence, failure in failures:
            self._fail([sequence], failure)
        if self._guesser is not None:
            self._guesser.saw(plan, time.perf_counter() - start)

    def _run(self, plan: Plan) -> tuple[Candidates, Masks]:
        """A step and the masks of its rows, which `_cancelled` may stop; a stop never outlives it, but when closing."""
        computing = [part.sequence for part in plan]
        with self._lock:
            if all(s.stream.cancelled for s in computing):
                raise Stopped
            self._computing = computing  # from here on somebody may stop the device: what follows resumes it
        try:
            masks = self._masks.begin([part.sequence.constraint for part in plan if part.wanted])
            try:
                candidates = self._runner.step(plan)
            finally:
                made = masks()
        finally:
            with self._lock:
                self._computing = []
                if not self._closing:
                    self._runner.device.resume()
        return candidates, made

    def _result(self, reply: Reply[T]) -> T:
        """What comes, waited for so that a signal is noticed, and that the thread is there to make it come."""
        self._refuse_itself()
        while True:
            lives = self._thread.is_alive()
            try:
                return reply.take(LOOK_UP_SECONDS)
            except queue.Empty:
                if not lives:
                    raise _closed() from None

    def _fail(self, sequences: Iterable[Sequence], error: Exception) -> None:
        """These sequences end with an error, and their pages are free."""
        told = known(error, _FAILED)
        for sequence in sequences:
            with self._lock:
                if sequence in self._incoming:
                    self._incoming.remove(sequence)
            self._scheduler.remove(sequence)
            sequence.stream.put(TokenOutput(None, "error", told))


def _closed() -> DeviceError:
    return DeviceError("the model was closed", hint="load it again")
