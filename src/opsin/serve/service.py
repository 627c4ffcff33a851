"""A model behind HTTP: loading, who is inside, time limits, and what was counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from opsin.api import Model
from opsin.errors import BusyError, ModelError
from opsin.serve.body import GONE, Body
from opsin.serve.errors import HttpError
from opsin.serve.fields import parse
from opsin.serve.metrics import Metrics
from opsin.serve.options import Options
from opsin.serve.running import late, off_loop

T = TypeVar("T")
_PARSERS = 2


class Service:
    """One model and its requests. `load` is called once, on a thread, by `start`."""

    def __init__(self, options: Options, load: Callable[[], Model]) -> None:
        self.options, self._load = options, load
        self.metrics, self.started = Metrics(), int(time.time())
        # A pool for each kind of waiting: whoever waits for an answer keeps nobody's prompt from being made.
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="opsin-parse")
        self.makers = ThreadPoolExecutor(options.requests, thread_name_prefix="opsin-prompt")
        self.readers = ThreadPoolExecutor(options.requests, thread_name_prefix="opsin-answer")
        self.ended = asyncio.Event()  # set when the server ends, and those who wait still must hear of it
        self._model: Model | None = None
        self._active, self._lock = 0, threading.Lock()

    @property
    def model(self) -> Model:
        """Raises BusyError until it is there."""
        if self._model is None:
            raise BusyError("the model is being loaded", hint="come again in a few seconds")
        return self._model

    @property
    def ready(self) -> bool:
        return self._model is not None

    @property
    def active(self) -> int:
        """Answers that run or wait."""
        return self._active

    @property
    def name(self) -> str:
        """What the model is called: its file's name without the ending, if nobody says otherwise."""
        return self.options.name or self.model.path.name.removesuffix(".gguf")

    @property
    def names(self) -> list[str]:
        """All that it may be asked for by."""
        return list(dict.fromkeys((self.name, self.model.path.name.removesuffix(".gguf"), self.model.path.name)))

    def gauges(self) -> dict[str, float]:
        """What is so at this moment."""
        most = self._model.sequences if self._model is not None else 0
        return {
            "requests_inside": float(self._active),
            "ready": float(self.ready),
            "requests_processing": float(min(self._active, most)),
            "requests_deferred": float(max(0, self._active - most)),
        }

    async def start(self) -> None:
        """Load the model. Raises what loading raises, and ModelError for one that cannot write."""
        self._model = await off_loop(self.makers, self._writing)

    def _writing(self) -> Model:
        model = self._load()
        if not model.has_text:
            model.close()
            raise ModelError(f"{model.path} holds no text model", hint="give it as --mmproj of the model that it is of")
        return model

    async def close(self) -> None:
        """End all answers and give the model's memory back."""
        model, self._model = self._model, None
        if model is not None:
            await asyncio.to_thread(model.close)
        self.shut()

    def shut(self) -> None:
        """End the threads that wait for nothing."""
        for pool in (self._parsers, self.makers, self.readers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def read(self, body: Body, reader: Callable[[Mapping[str, Any]], T]) -> T:
        """What a body says. A large one takes seconds to be read, which nobody else shall feel."""
        _ = self.model  # 503 while it loads
        data = await body.read()
        return await off_loop(self._parsers, lambda: reader(parse(data)))

    async def make(self, work: Callable[[Callable[[], None]], T], until: float) -> T:
        """Make prompts, on a thread: pictures may have to be fetched. Raises HttpError 504 at `until`.

        `work` is given a function that raises when nobody waits any more, to call now and then. Until it has ended,
        work that nobody waits for keeps a place.
        """
        left = threading.Event()

        def check() -> None:
            if left.is_set():
                raise HttpError(GONE, "the client went away")

        making = asyncio.ensure_future(off_loop(self.makers, lambda: work(check)))
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(making)
        except TimeoutError:
            raise late(self.options.seconds) from None
        finally:
            if not making.done():
                left.set()
                self._count(1)
                making.add_done_callback(self._left)
            del making  # its error would hold this frame, and the pictures of a request, until a collection

    def _left(self, made: asyncio.Future[T]) -> None:
        self._count(-1)
        if not made.cancelled():
            made.exception()  # nobody else asks

    def _count(self, places: int) -> None:
        with self._lock:
            self._active += places

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
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.add("requests_cancelled_total")
            raise
        except BaseException:
            self.metrics.add("requests_failed_total")
            raise
        finally:
            self._count(-answers)
