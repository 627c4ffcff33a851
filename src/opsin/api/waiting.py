"""Decoded pictures that wait for their encoder: some stay decoded, of the others only the file's bytes are kept.

A picture of 12 megapixels is 48 MB decoded and 3 in its file. Who comes first is encoded first, so those that came
first stay decoded, and late ones are decoded once more when their turn comes.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from opsin.errors import BusyError
from opsin.nn.module import Floats
from opsin.spans import Features, MediaSpan, Patches


class Room:
    """So many bytes of pictures, of all requests together; None for no limit. Safe from many threads."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self._taken = limit, 0
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
            raise BusyError("too many large pictures wait", hint="come again in a few seconds")

    def give_back(self, count: int) -> None:
        """The garbage collector may call it at any moment, also where the lock is held, or was at a fork."""
        self._returned.append(count)

    def _settled(self) -> int:
        while self._returned:
            self._taken -= self._returned.popleft()
        return self._taken


@dataclass(frozen=True)
class Rooms:
    """For pictures as they are decoded, and for their files."""

    decoded: Room
    files: Room


def waiting(patches: Patches, data: bytes, again: Callable[[bytes], Patches], rooms: Rooms, count: int) -> Patches:
    """The same patches, whose picture stays decoded while there is room for its `count` bytes.

    `again` decodes its file once more, and lays it out. Raises BusyError where there is no room for the file.
    """
    rooms.files.need(len(data))
    picture = _Waiting(patches, partial(again, data), rooms.decoded, count)
    weakref.finalize(picture, rooms.files.give_back, len(data))

    def part(given: str | MediaSpan) -> str | MediaSpan:
        if isinstance(given, str) or given.features is None:
            return given
        return replace(given, features=Features(given.features.shape, partial(picture.make, given.digest)))

    return replace(patches, parts=tuple(part(given) for given in patches.parts))


class _Waiting:
    """One picture. It lets go of what it decoded when the features of each digest have been made."""

    def __init__(self, patches: Patches, again: Callable[[], Patches], room: Room, count: int) -> None:
        self._again, self._lock = again, Lock()
        self._parts, self._made = len({span.digest for span in patches.spans}), 0
        self._patches = patches if room.take(count) else None
        self._leave = weakref.finalize(self, room.give_back, count) if self._patches is not None else None

    def make(self, digest: bytes) -> Floats:
        with self._lock:
            patches = self._patches = self._patches or self._again()
            self._made += 1
            if self._made % self._parts == 0:
                self._patches = None
                if self._leave is not None:
                    self._leave()
        features = next(span.features for span in patches.spans if span.digest == digest)
        assert features is not None
        return features.make()
