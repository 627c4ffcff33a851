"""What is ready, for one task of the event loop that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ready(Generic[T]):
    """Things that are ready, in their order, each once. For the event loop's thread."""

    def __init__(self) -> None:
        self._things: dict[T, None] = {}  # a set that keeps its order
        self._waiting: asyncio.Future[None] | None = None
        self._at_once: Callable[[T], bool] | None = None  # only while somebody waits: what it knows may know us

    def put(self, thing: T) -> None:
        """One more."""
        at_once, self._at_once = self._at_once, None  # so what it puts itself is the task's
        waiting = self._waiting
        if at_once is None or waiting is None or waiting.done():
            self._things[thing] = None
            return
        try:
            waits = at_once(thing)
        except Exception as error:  # noqa: BLE001 - the task hears of it
            waiting.set_exception(error)
            return
        if not waits:
            self._things[thing] = None
        if self._things:
            waiting.set_result(None)
        else:
            self._at_once = at_once

    async def get(self, at_once: Callable[[T], bool]) -> list[T]:
        """All that are there, and at least one. Others have their turn before.

        Args:
            at_once: does what the task would do with a thing, while that waits: to wake it would take as long as the
                work itself. Says whether the task may go on waiting, which hears what is raised.
        """
        if self._things:
            await asyncio.sleep(0)
        else:
            self._waiting, self._at_once = asyncio.get_running_loop().create_future(), at_once
            try:
                await self._waiting
            finally:
                self._waiting = self._at_once = None
        things, self._things = self._things, {}
        return list(things)
