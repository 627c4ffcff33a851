"""Decoded pictures and sounds that wait for their encoder: some stay so, of the others only the file's bytes are kept.

A picture of 12 megapixels is 48 MB decoded and 3 in its file. Who comes first is encoded first, so those that came
first stay decoded, and late ones are decoded once more when their turn comes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from opsin.api.byte_budget import ByteBudget
from opsin.arrays import Floats
from opsin.media.limits import PictureLimits
from opsin.spans import Features, MediaSpan, Patches

_DECODED = 256 << 20  # bytes of pictures and sounds that wait for their encoder and stay decoded meanwhile


@dataclass(frozen=True)
class PictureBytes:
    """For pictures and sounds as they are decoded, and for their files."""

    decoded: ByteBudget
    files: ByteBudget

    @classmethod
    def of(cls, limits: PictureLimits) -> PictureBytes:
        """As much as these limits say."""
        return cls(ByteBudget(_DECODED), ByteBudget(limits.waiting_bytes))


def keep_decoded(
    patches: Patches, data: bytes, again: Callable[[bytes], Patches], budgets: PictureBytes, count: int
) -> Patches:
    """The same patches, whose picture stays decoded while there is room for its `count` bytes.

    `again` decodes its file once more, and lays it out. Raises BusyError where there is no room for the file.
    """
    budgets.files.need(len(data))
    picture = _Waiting(patches, partial(again, data), budgets.decoded, count)
    weakref.finalize(picture, budgets.files.give_back, len(data))

    def part(given: str | MediaSpan) -> str | MediaSpan:
        if isinstance(given, str) or given.features is None:
            return given
        return replace(given, features=Features(given.features.shape, partial(picture.make, given.digest)))

    return replace(patches, parts=tuple(part(given) for given in patches.parts))


class _Waiting:
    """One picture. It lets go of what it decoded when the features of each digest have been made."""

    def __init__(self, patches: Patches, again: Callable[[], Patches], budget: ByteBudget, count: int) -> None:
        self._again, self._lock = again, Lock()
        self._parts, self._made = len({span.digest for span in patches.spans}), 0
        self._patches = patches if budget.take(count) else None
        self._leave = weakref.finalize(self, budget.give_back, count) if self._patches is not None else None

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
