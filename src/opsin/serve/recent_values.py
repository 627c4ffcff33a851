"""Values by key within a limit of bytes: what was not used for longest goes first. Any thread may use it."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class RecentValues(Generic[K, T]):
    """At most `most` bytes, as whoever puts something there counts them."""

    def __init__(self, most: int) -> None:
        self.most, self._bytes = most, 0
        self._kept: dict[K, tuple[T, int]] = {}  # least recently used first
        self._lock = Lock()

    @property
    def used_bytes(self) -> int:
        return self._bytes

    def put(self, key: K, value: T, count: int) -> bool:
        """Whether it has room at all; in place of what had the key."""
        if count > self.most:
            return False
        with self._lock:
            self._drop(key)
            self._kept[key] = value, count
            self._bytes += count
            while self._bytes > self.most:
                self._drop(next(iter(self._kept)))
        return True

    def get(self, key: K) -> T | None:
        """It counts as used now."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is None:
                return None
            self._kept[key] = found
            return found[0]

    def pop(self, key: K) -> T | None:
        """What had the key, and is gone now."""
        with self._lock:
            return self._drop(key)

    def items(self) -> list[tuple[K, T]]:
        """All of them, as they are at this moment."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._kept.items()]

    def _drop(self, key: K) -> T | None:
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._bytes -= found[1]
        return found[0]
