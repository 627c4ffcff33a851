"""What somebody waits for and another thread gives.

Like a `concurrent.futures.Future`, whose lock stays taken for ever where Ctrl-C comes between the taking and its use:
the thread that has to give the result would wait for it. A queue in C holds no lock that an interrupt can leave behind.

Thread: the engine's gives, whoever asked waits.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Reply(Generic[T]):
    """Given once, by `give` or `fail`; taken once, by `take`."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def give(self, value: T) -> None:
        self._given.put((value, None))

    def fail(self, error: BaseException) -> None:
        self._given.put((None, error))

    def take(self, seconds: float) -> T:
        """Wait for it so long. Raises `queue.Empty` where it did not come, and what it failed with."""
        value, error = self._given.get(timeout=seconds)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


@dataclass(eq=False)
class Call:
    """Somebody waits for work on another thread, as long as it is not `abandoned`."""

    run: Callable[[], None]
    abandoned: bool = False
