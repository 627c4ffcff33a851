"""A model behind HTTP: when it is in memory, who is inside, time limits, and what was counted."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

from opsin.api import Model
from opsin.engine.watch import EngineFigures
from opsin.errors import BusyError, DeviceError
from opsin.serve.body import GONE, Body, gone
from opsin.serve.errand import Errand, OnThread
from opsin.serve.errors import HttpError
from opsin.serve.fields import parse
from opsin.serve.generation_request import Usual, usual_of
from opsin.serve.heap import trim
from opsin.serve.loop_calls import LoopCalls
from opsin.serve.model_card import ModelCard
from opsin.serve.multipart import FormBody, read_form
from opsin.serve.options import Options
from opsin.serve.places import Places
from opsin.serve.record import stage
from opsin.serve.server_state import ServerState
from opsin.serve.slots import Slots
from opsin.serve.threads import Threads

T = TypeVar("T")
_LOG = logging.getLogger("opsin.serve")
_PARSERS = 2


class Service:
    """One model and its requests.

    Args:
        load: reads the model, on a thread, whenever it is wanted and not in memory.
        need: bytes that it will take; raises what is known to be wrong with it.
        state, places: what it shares with other models of the server; None for a server of this one alone.
        label: what it is called there.
    """

    def __init__(
        self, options: Options, load: Callable[[], Model], *, need: Callable[[], int] = lambda: 0,
        state: ServerState | None = None, places: Places | None = None, label: str = "",
    ) -> None:  # fmt: skip
        self.options, self._load, self._need, self.label = options, load, need, label
        given = {name for part in (options.name or "").split(",") if (name := part.strip())}
        self._aliases = ([label] if label else []) + sorted(given - {label})
        self.state = ServerState(options) if state is None else state
        self.state.join(self._look)
        self._alone = places is None
        self.places = Places(idle_seconds=options.sleep_seconds) if places is None else places
        self.metrics = self.state.metrics
        # A pool for each kind of waiting: whoever waits for an answer keeps nobody's prompt from being made.
        self._parsers = Threads(_PARSERS, "opsin-parse")
        self.makers = Threads(options.requests, "opsin-prompt")
        self.slots = Slots(keeps=options.slot_path is not None)
        self._model: Model | None = None
        self._usual: Usual | None = None
        self._card: ModelCard | None = None
        self._marker = options.media_marker
        self._going: asyncio.Task[None] | None = None
        self._calls: LoopCalls | None = None
        self._active, self._lock = 0, threading.Lock()
        self._last: EngineFigures | None = None  # of the engine before it was unloaded
        self._seen: dict[str, int] = {}  # what was held at the last look while nobody was inside, and
        self._told: dict[str, int] = {}  # what the log was told of it
        self._done: tuple[tuple[int, int], float] = (-1, -1), 0.0  # steps and pictures by now, and since when

    @property
    def model(self) -> Model:
        """Raises BusyError until it is there."""
        if self._model is None:
            raise _loading()
        return self._model

    @property
    def usual(self) -> Usual:
        """What holds of requests that say nothing. Raises BusyError until the model was there."""
        if self._usual is None:
            raise _loading()
        return self._usual

    @property
    def card(self) -> ModelCard:
        """What is told of the model. Raises BusyError until it was there."""
        if self._card is None:
            raise _loading()
        return self._card

    @property
    def media_marker(self) -> str:
        """What stands for a picture in prompts as clients write and read them."""
        return self._marker or self.card.picture_marker

    @property
    def ready(self) -> bool:
        """Whether requests are taken: the model is there, or sleeps until somebody wants it."""
        return self._card is not None

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    @property
    def idle(self) -> bool:
        """Whether no work of any request goes on, also such as nobody waits for."""
        return self._active == 0

    @property
    def engine_lives(self) -> bool:
        """Whether the model's engine can go on; also while there is no model yet."""
        return self._model is None or self._model.engine.is_alive

    @property
    def active(self) -> int:
        """Answers that run or wait."""
        return self._active

    @property
    def name(self) -> str:
        """What the model is called: as its file without the ending or in its store, if nobody says otherwise."""
        return self.aliases[0]

    @property
    def names(self) -> list[str]:
        """All that it may be asked for by."""
        return list(dict.fromkeys((*self.aliases, self.card.name, self.card.file)))

    @property
    def aliases(self) -> list[str]:
        """What the operator calls it, with commas several names: in the alphabet's order, as llama-server does."""
        return self._aliases or [self.card.name]

    def figures(self) -> EngineFigures | None:
        """What the engine does and holds, or did before it slept; None before the model was there."""
        return self._last if self._model is None else self._model.engine.watch.figures().after(self._last)

    def leaked(self) -> dict[str, int]:
        """What is held while nobody is inside: nothing, or there is a defect."""
        figures = self.figures()
        return {} if figures is None or self._active else figures.leaked

    def check_leaks(self) -> dict[str, int]:
        """What is held now as it was the last time, while nobody was inside; new ones are said in the log."""
        seen, before = self.leaked(), self._seen
        self._seen = seen
        lasting = {name: number for name, number in seen.items() if before.get(name) == number}
        if lasting and lasting != self._told:
            _LOG.error("opsin: nobody is inside, and yet there are held: %s", lasting)
        self._told = lasting
        return lasting

    def check(self, seconds: float = 600.0) -> None:
        """Raise DeviceError where the engine has died, or computed nothing for so long although it has work to do.

        A silence is counted from the call that first saw it: ask again and again.
        """
        if not self.engine_lives:
            raise DeviceError("the engine has ended", hint="start the server anew")
        figures, now = self.figures(), time.monotonic()
        done = (0, 0) if figures is None else (figures.steps, figures.pictures_encoded)
        if figures is None or not (figures.running or figures.waiting) or done != self._done[0]:
            self._done = done, now
        elif now - self._done[1] > seconds:
            raise DeviceError(f"the engine has work, and has done none for {seconds:g} s", hint="start the server anew")

    async def drain(self, seconds: float) -> bool:
        """Say that nobody new shall come, and wait so long for those inside; whether all have their answers."""
        return await self.state.drain(lambda: self._active, seconds)

    def _look(self) -> dict[str, float]:
        """What is so at this moment, for the metrics."""
        figures = self.figures()
        if self._model is not None:
            took = self._model.engine.watch.encode_seconds
            while took:
                self.metrics.observe("encode_seconds", took.popleft())
        running = 0 if figures is None else figures.running
        return {
            "ready": float(self.ready),
            "requests_inside": float(self._active),
            "requests_processing": float(running),
            "requests_deferred": float(max(0, self._active - running)),
            "steps": 0.0 if figures is None else figures.steps,
            "parts": 0.0 if figures is None else figures.parts,
            "guessing": 0.0 if figures is None else figures.guessing,
            "guessed": 0.0 if figures is None else figures.guessed,
            "right": 0.0 if figures is None else figures.right,
            "pages_used": 0.0 if figures is None else figures.pages,
            "pages": 0.0 if figures is None else figures.pages_total,
            "memory_pages_used": 0.0 if figures is None else figures.memory_pages,
            "states_used": 0.0 if figures is None else figures.states,
            "states": 0.0 if figures is None else figures.states_total,
            "pictures_pinned": 0.0 if figures is None else figures.pictures,
            "pictures_kept": 0.0 if figures is None else figures.pictures_kept,
            "pictures_read": 0.0 if figures is None else figures.pictures_read,
            "pictures_encoded": 0.0 if figures is None else figures.pictures_encoded,
            "rows_waiting": 0.0 if figures is None else figures.rows_waiting,
            "leaked": float(sum(self._told.values())),
        }

    async def watch(self, seconds: float = 10.0) -> None:
        """Look for what is held while nobody is inside, now and then."""
        while True:
            await asyncio.sleep(seconds)
            self.check_leaks()

    async def start(self) -> None:
        """Load the model. Raises what loading raises, and ModelError for one that cannot write."""
        await self.places.enter(self)
        self.places.leave(self)

    @asynccontextmanager
    async def held(self, body: Body) -> AsyncIterator[None]:
        """The model is in memory, and stays there meanwhile.

        Raises BusyError while a server of this one alone begins, and HttpError where the client does not wait.
        """
        if self._alone and self._card is None:
            raise _loading()
        if not self.places.try_enter(self):
            await self._wait(body)
        try:
            yield
        finally:
            self.places.leave(self)

    @asynccontextmanager
    async def known(self, body: Body) -> AsyncIterator[None]:
        """The model was in memory once, so that its card can be told."""
        if self._card is None:
            async with self.held(body):
                pass
        yield

    async def _wait(self, body: Body) -> None:
        """Come in when the model is there. Raises HttpError where the client goes away before, or it takes too long."""
        seconds, left = self.options.seconds, asyncio.ensure_future(body.left()) if body.is_whole else None
        try:
            async with asyncio.timeout(seconds):
                entered = await self.places.enter(self, left)
        except TimeoutError:
            raise HttpError(504, f"the model was not there within {seconds:g} s") from None
        finally:
            if left is not None:
                left.cancel()
        if not entered:
            raise gone()

    def let_go(self) -> bool:
        """Unload the model when nobody is inside; whether it is one that may go because a client says so."""
        if not self._alone:
            self._going = asyncio.ensure_future(self.places.drop(self))
        return not self._alone

    async def need(self) -> int:
        """Bytes that the model will take; raises what is known to be wrong with it."""
        return await asyncio.get_running_loop().run_in_executor(self.makers, self._need)

    async def load(self) -> None:
        """Read the model. For `places`, which knows when."""
        loop = asyncio.get_running_loop()
        self._calls = LoopCalls(loop)
        made = await loop.run_in_executor(self.makers, self._writing)
        self._model, self._card = made, ModelCard.of(made)
        self._marker = self.media_marker
        self._usual = usual_of(made.facts, self.options.defaults, self.options.grammar)

    async def unload(self) -> None:
        """Give the model's memory back. For `places`, which knows when."""
        self._last, model, self._model = self.figures(), self._model, None
        if model is None:
            return
        await asyncio.to_thread(model.close)
        del model
        await asyncio.to_thread(_collect)

    def _writing(self) -> Model:
        model = self._load().with_text()
        if not model.writes:
            return model
        grammars = model.text.grammars
        model.tokenizer.prepare()  # else the first text, or grammar, would hold the interpreter, and all answers
        grammars.prepare()
        if self.options.grammar is not None:
            grammars.start(self.options.grammar)  # one that cannot be met is the operator's affair, now
        return model

    async def close(self) -> None:
        """End all answers and give the model's memory back."""
        if self._alone:
            await self.places.close()
        await self.unload()
        self.state.part(self._look)
        self.shut()

    def shut(self) -> None:
        """End the threads that wait for nothing."""
        for pool in (self._parsers, self.makers):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._alone:
            self.state.close()

    async def parse(self, body: Body, reader: Callable[[Mapping[str, Any]], T]) -> T:
        """What a body says. A large one takes seconds to be read, which nobody else shall feel."""
        _ = self.model  # 503 while it loads
        with stage("parse"):
            data = await body.read()
            return await asyncio.get_running_loop().run_in_executor(self._parsers, _parsed, data, reader)

    async def form(self, body: Body, content_type: str) -> FormBody:
        """What a form says. Raises HttpError for what is none."""
        with stage("parse"):
            data = await body.read()
            return await asyncio.get_running_loop().run_in_executor(self._parsers, read_form, data, content_type)

    async def prompt(self, body: Body, work: OnThread[T]) -> T:
        """Make prompts of what a body says: pictures may have to be fetched. Then its room is given back."""
        with stage("prompt"):
            made = await self.work(work)
        body.let_go()
        return made

    async def work(self, work: OnThread[T]) -> T:
        """Do work on a thread. Until it has ended, work that nobody waits for keeps a place."""
        errand = Errand(self.makers, self.count, self.end_abandoned)
        try:
            return await asyncio.shield(errand.start(work))
        finally:
            errand.leave()

    def count(self, places: int) -> None:
        """So many places are taken, or given back. Any thread."""
        with self._lock:
            self._active += places

    def end_abandoned(self) -> None:
        """Work that nobody waited for has ended. Any thread."""
        self.count(-1)
        self.on_loop(partial(self.places.notice, self))

    def on_loop(self, call: Callable[[], object]) -> None:
        """Call it soon on the event loop, while there is one. Any thread."""
        if self._calls is not None:
            self._calls.soon(call)

    @contextmanager
    def admit(self, answers: int = 1) -> Iterator[None]:
        """A place for each answer of a request. Raises BusyError where too few are free."""
        with self._lock:
            if self._active + answers > self.options.requests:
                raise BusyError(f"{self._active} requests are inside", hint="come again in a few seconds")
            self._active += answers
        self.metrics.add("requests_total")
        try:
            yield
        except BaseException as error:
            left = isinstance(error, HttpError) and error.status == GONE
            left |= isinstance(error, asyncio.CancelledError)
            self.metrics.add("requests_cancelled_total" if left else "requests_failed_total")
            raise
        finally:
            self.count(-answers)


def _loading() -> BusyError:
    return BusyError("the model is being loaded", hint="come again in a few seconds")


def _collect() -> None:
    """A model's parts know each other: some other time would be too late for the next one's memory."""
    for _ in range(2):  # finalizers of the first may hold what the second lets go
        gc.collect()
    trim()


def _parsed(data: bytearray, reader: Callable[[Mapping[str, Any]], T]) -> T:
    return reader(parse(data))
