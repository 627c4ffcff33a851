"""Calls that other threads hand to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class LoopCalls:
    """They are made in the order in which they came. All that come before the loop looks cost one wake-up of it.

    A step of the engine tells as many streams as there are sequences: a wake-up is a system call, and each of them
    would let the threads pass the interpreter to and fro.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._roused = False

    def soon(self, call: Callable[[], object]) -> None:
        """Any thread. Nothing is called once the loop has ended."""
        self._calls.append(call)
        if not self._roused:
            self._roused = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._make)

    def _make(self) -> None:
        self._roused = False  # first: whoever comes from here on rouses anew
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        except BaseException:  # the loop's affair; those behind it are made all the same
            self._loop.call_soon(self._make)
            raise
