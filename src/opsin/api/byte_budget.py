"""How many bytes of something may be there at once, of all requests together."""

from __future__ import annotations

from collections import deque
from threading import Lock

from opsin.errors import BusyError


class ByteBudget:
    """So many bytes; None for no limit. Safe from many threads.

    Args:
        limit: how many.
        what: who waits where there is no room, as "too many large pictures wait".
    """

    def __init__(self, limit: int | None, what: str = "too many large pictures wait") -> None:
        self.limit, self._what, self._taken = limit, what, 0
        self._lock, self._returned = Lock(), deque[int]()

    @property
    def used(self) -> int:
        """Bytes that are taken now."""
        with self._lock:
            return self._settled()

    def take(self, count: int) -> bool:
        """Whether there was room for so many bytes; then it is taken."""
        with self._lock:
            if self.limit is not None and self._settled() + count > self.limit:
                return False
            self._taken += count
            return True

    def need(self, count: int) -> None:
        """Take it, or raise BusyError."""
        if not self.take(count):
            raise BusyError(self._what, hint="come again in a few seconds")

    def give_back(self, count: int) -> None:
        """The garbage collector may call it at any moment, also where the lock is held, or was at a fork."""
        self._returned.append(count)

    def _settled(self) -> int:
        while self._returned:
            self._taken -= self._returned.popleft()
        return self._taken
