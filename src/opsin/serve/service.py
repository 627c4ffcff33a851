"""A model behind HTTP: loading, who is inside, time limits, and what was counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from opsin.api import Model
from opsin.errors import BusyError
from opsin.serve.metrics import Metrics
from opsin.serve.options import Options
from opsin.serve.running import off_loop


class Service:
    """One model and its requests. `load` is called once, on a thread, by `start`."""

    def __init__(self, options: Options, load: Callable[[], Model]) -> None:
        self.options, self._load = options, load
        self.metrics, self.started = Metrics(), int(time.time())
        # Each request inside reads its answer on one thread; each may have several answers.
        self.threads = ThreadPoolExecutor(2 * options.requests, thread_name_prefix="opsin-serve")
        self._model: Model | None = None
        self._inside, self._lock = 0, threading.Lock()

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
    def inside(self) -> int:
        """Requests that run or wait."""
        return self._inside

    @property
    def name(self) -> str:
        return self.options.name or self.model.path.name

    async def start(self) -> None:
        """Load the model. Raises what loading raises."""
        self._model = await off_loop(self.threads, self._load)

    async def close(self) -> None:
        """End all answers and give the model's memory back."""
        model, self._model = self._model, None
        if model is not None:
            await asyncio.to_thread(model.close)
        self.threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request. Raises BusyError where all are taken."""
        with self._lock:
            if self._inside >= self.options.requests:
                raise BusyError(f"{self._inside} requests are inside", hint="come again in a few seconds")
            self._inside += 1
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
            with self._lock:
                self._inside -= 1
