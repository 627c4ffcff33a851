"""Threads that are there while there is work, and end when there has been none for a while."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """At most `most` of them, called `name-1`, `name-2` and so on."""

    def __init__(self, most: int, name: str, *, idle_seconds: float = 30.0) -> None:
        self._most, self._name, self._idle_seconds = most, name, idle_seconds
        self._work: deque[Callable[[], None]] = deque()
        self._futures: deque[Future[object]] = deque()  # of the work, in the same order
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

        def work() -> None:
            if future.set_running_or_notify_cancel():
                _run(future, lambda: function(*args, **kwargs))

        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._name} has ended")
            self._work.append(work)
            self._futures.append(future)  # type: ignore[arg-type]
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
                for future in self._futures:
                    future.cancel()
            self._changed.notify_all()

    def _start(self) -> None:
        self._made += 1
        thread = threading.Thread(target=self._live, name=f"{self._name}-{self._made}", daemon=True)
        thread.start()
        self._count += 1

    def _live(self) -> None:
        while (work := self._next()) is not None:
            work()
            del work  # it may hold much, and the next one may be long in coming

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._waiting += 1
            while not self._work:
                if self._closed or (not self._changed.wait(self._idle_seconds) and not self._work):
                    self._count -= 1
                    self._waiting -= 1
                    return None
            self._waiting -= 1
            self._futures.popleft()
            return self._work.popleft()


def _run(future: Future[T], function: Callable[[], T]) -> None:
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - whoever waits hears of it
        trace = error.__traceback__
        # Without this frame, which knows the future: in a ring of both, what was asked about would stay.
        future.set_exception(error.with_traceback(trace and trace.tb_next))
    else:
        future.set_result(result)
