"""Work of a request on a thread, which may go on after its client has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from opsin.serve.body import gone

T = TypeVar("T")
Made = TypeVar("Made", covariant=True)


class OnThread(Protocol[Made]):
    """What is done on a thread. `check` raises when nobody waits any more; it is called now and then."""

    def __call__(self, *, check: Callable[[], None]) -> Made: ...


class Errand:
    """Work on a thread, which whoever waits for it may leave. It has no future that would hold it with its error.

    Args:
        count: takes a place for what nobody waits for any more.
        ended: gives it back.
    """

    def __init__(self, threads: Executor, count: Callable[[int], None], ended: Callable[[], None]) -> None:
        self._threads, self._count, self._ended, self._lock = threads, count, ended, threading.Lock()
        self._over, self._left = False, False

    def start(self, work: OnThread[T]) -> asyncio.Future[T]:
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)
        running.add_done_callback(_look)
        return running

    def leave(self) -> None:
        """Nobody waits any more. What still runs keeps a place."""
        with self._lock:
            self._left = True
            if not self._over:
                self._count(1)

    def _do(self, work: OnThread[T]) -> T:
        try:
            return work(check=self._check)
        finally:
            with self._lock:
                self._over = True
                if self._left:
                    self._ended()

    def _check(self) -> None:
        if self._left:
            raise gone()


def _look(done: asyncio.Future[Any]) -> None:
    """At an error that nobody waits for, so that nobody misses it."""
    if not done.cancelled():
        done.exception()
