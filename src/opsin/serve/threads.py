"""Threads that are there while there is work, and end when there has been none for a while."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


class Threads(Executor):
    """At most `most` of them, called `name-1`, `name-2` and so on."""

    def __init__(self, most: int, name: str, *, idle_seconds: float = 30.0) -> None:
        self._most, self._name, self._idle_seconds = most, name, idle_seconds
        self._work: deque[_Work] = deque()
        self._count = self._waiting = self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        """Threads that are there."""
        return self._count

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do it soon. Raises RuntimeError once shut down."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._name} has ended")
            self._work.append((future, partial(function, *args, **kwargs)))
            if self._waiting >= len(self._work):
                self._changed.notify()
            elif self._count < self._most:
                self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more work. Threads end when what is there is done, or cancelled; nobody waits for them."""
        with self._changed:
            self._closed = True
            if cancel_futures:
                for future, _ in self._work:
                    future.cancel()
            self._changed.notify_all()

    def _start(self) -> None:
        self._made += 1
        thread = threading.Thread(target=self._live, name=f"{self._name}-{self._made}", daemon=True)
        thread.start()
        self._count += 1

    def _live(self) -> None:
        while (work := self._next()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
                    future.set_exception(error)
            # It may hold much, and the next one may be long in coming. An error knows this frame: with the future in
            # it the two would be a ring, in which all that was asked about stays.
            del work, future, function

    def _next(self) -> _Work | None:
        with self._changed:
            self._waiting += 1
            while not self._work:
                if self._closed or (not self._changed.wait(self._idle_seconds) and not self._work):
                    self._count -= 1
                    self._waiting -= 1
                    return None
            self._waiting -= 1
            return self._work.popleft()
