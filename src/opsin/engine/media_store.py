"""Embeddings of media by digest, on the device. It does not know how they are made.

Thread: the engine's, once the model is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from opsin.engine.media_cache import MediaCache
from opsin.ops import Array, most


@dataclass(frozen=True, eq=False)
class Embedded:
    """Rows `row`, `row` + 1, ... of what an encoder gave."""

    array: Array  # [rows of all that was encoded together, width]
    row: int
    rows: int


class MediaStore:
    """At most `limit` bytes, but for what sequences still need. What was not used for longest goes first.

    It lives on the engine's thread. `disk` is what the encoding thread has beside it; None for nothing.
    """

    def __init__(self, limit: int, disk: MediaCache | None = None) -> None:
        self.limit, self.disk = limit, disk
        self._kept: dict[bytes, Embedded] = {}  # least recently used first
        self._shares: dict[Array, int] = {}  # arrays, and how many digests lie in each

    @property
    def used_bytes(self) -> int:
        """What is kept: an array is free when the last of its pictures goes."""
        return sum(4 * most(array.shape[0]) * array.width for array in self._shares)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes) -> Embedded:
        """Embeddings that are there; they count as used now."""
        found = self._kept[digest] = self._kept.pop(digest)
        return found

    def put(self, digests: Sequence[bytes], array: Array, rows: int) -> None:
        """Embeddings [len(digests) * rows, width], `rows` of each in this order."""
        for number, digest in enumerate(digests):
            self._drop(digest)
            self._kept[digest] = Embedded(array, number * rows, rows)
            self._shares[array] = self._shares.get(array, 0) + 1

    def trim(self, needed: Collection[bytes]) -> None:
        """Forget what was not used for longest until the limit holds; never what is needed."""
        if self.used_bytes <= self.limit:
            return
        for digest in [digest for digest in self._kept if digest not in needed]:
            self._drop(digest)
            if self.used_bytes <= self.limit:
                return

    def _drop(self, digest: bytes) -> None:
        gone = self._kept.pop(digest, None)
        if gone is not None:
            self._shares[gone.array] -= 1
            if not self._shares[gone.array]:
                del self._shares[gone.array]
