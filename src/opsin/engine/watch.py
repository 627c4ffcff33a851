"""What an engine has done and holds, as numbers for whoever watches it.

Thread: the engine's counts; any thread may look, and sees numbers that may be a step apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from opsin.engine.media_work import MediaWork
from opsin.engine.scheduler import Scheduler

COUNTED: Final = ("steps", "parts", "pictures_read", "pictures_encoded", "guessing", "guessed", "right")


@dataclass(frozen=True)
class EngineFigures:
    """At one moment. Those of COUNTED only grow.

    Attributes:
        steps: since the beginning, and
        parts: the sequences of all of them, summed.
        running, waiting: sequences that hold pages, and that do not yet.
        pages, memory_pages: of the caches, those that somebody uses; the others may be kept to be found again.
        pages_total: of the KV cache.
        states: slots for recurrent states, those that somebody uses; states_total: all of them.
        pictures: those that sequences still need.
        pictures_kept: those whose embeddings are kept.
        pictures_read: those whose embeddings lay on disk, since the beginning.
        pictures_encoded: those that were encoded, or parts of them, since the beginning.
        rows_waiting: of the prompts of all sequences, what is not computed yet.
        guessing: times that a sequence's step had guesses, since the beginning, and
        guessed, right: guesses of all of them, and those that were right.
    """

    steps: int
    parts: int
    running: int
    waiting: int
    pages: int
    pages_total: int
    memory_pages: int
    states: int
    states_total: int
    pictures: int
    pictures_kept: int
    pictures_read: int
    pictures_encoded: int
    rows_waiting: int
    guessing: int
    guessed: int
    right: int

    def after(self, before: EngineFigures | None) -> EngineFigures:
        """The same, counted on from those of an engine that ended."""
        if before is None:
            return self
        return replace(self, **{name: getattr(before, name) + getattr(self, name) for name in COUNTED})

    @property
    def leaked(self) -> dict[str, int]:
        """What is held although nobody is there to hold it: nothing, or there is a defect."""
        if self.running or self.waiting:
            return {}
        held = {"pages": self.pages, "memory_pages": self.memory_pages, "states": self.states,
                "pictures": self.pictures}  # fmt: skip
        return {name: number for name, number in held.items() if number}


class EngineWatch:
    """Counts steps, and looks at what is held."""

    def __init__(self, scheduler: Scheduler, media: MediaWork | None) -> None:
        self._scheduler, self._media = scheduler, media
        self._steps = self._parts = 0
        self._guessing = self._guessed = self._right = 0
        self.encode_seconds: deque[float] = deque() if media is None else media.seconds  # taken out by who reads them

    def saw(self, parts: int) -> None:
        """A step of so many sequences was computed."""
        self._steps, self._parts = self._steps + 1, self._parts + parts

    def checked(self, guessed: int, right: int) -> None:
        """So many guesses of one sequence were computed, of which the first ones were right."""
        self._guessing, self._guessed, self._right = self._guessing + 1, self._guessed + guessed, self._right + right

    def encoding(self, media: Iterable[bytes]) -> tuple[float, float] | None:
        """When some media were encoded, from the first to the last; None where that is long ago, or somebody else's."""
        times = {} if self._media is None else self._media.times
        found = [known for digest in media if (known := times.get(digest)) is not None]
        return (min(begin for begin, _ in found), max(end for _, end in found)) if found else None

    def figures(self) -> EngineFigures:
        """All of it now."""
        scheduler, pool, memory = self._scheduler, self._scheduler.pool, self._scheduler.memory.pool
        states = None if scheduler.states is None else scheduler.states.pool
        return EngineFigures(
            steps=self._steps, parts=self._parts, running=len(scheduler.running), waiting=len(scheduler.waiting),
            pages=pool.count - pool.free, pages_total=pool.count, memory_pages=memory.count - memory.free,
            states=0 if states is None else states.count - states.free,
            states_total=0 if states is None else states.count,
            pictures=0 if self._media is None else self._media.pinned,
            pictures_kept=0 if self._media is None else len(self._media.store),
            pictures_read=0 if self._media is None else self._media.read,
            pictures_encoded=0 if self._media is None else self._media.encoded,
            rows_waiting=sum(one.waiting_rows for one in (*scheduler.running, *scheduler.waiting)),
            guessing=self._guessing, guessed=self._guessed, right=self._right,
        )  # fmt: skip
