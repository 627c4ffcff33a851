"""Who guesses how sequences go on by computing it, and what is known of how often that is right and how long it takes.

Thread: the engine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from opsin.engine.look_up import Guess
from opsin.engine.sequence import Sequence

SURE = 0.3  # the least chance of a guess behind which one more is made
_NEWEST = 0.05  # weight of the newest guess in what is known of all
_TRIES = 32  # steps after which it is tried again where it did not pay


class Drafter:
    """Guesses how sequences go on.

    Attributes:
        kind: in llama.cpp's words.
        seconds: what one guess of all sequences takes.
        share: of its guesses, those that are right.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self.seconds, self.share, self._since = 0.0, 0.7, 0
        self._offered: dict[Sequence, tuple[int, list[int]]] = {}  # rows known before its last guesses, and these

    def guesses(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[Guess]]:
        """At most so many guesses of each sequence, or none. Raises as `Recorded.run`."""
        self._since = 0
        found = self._make(wanted)
        self._offered = {s: (s.known, [guess.id for guess in some]) for s, some in found.items() if some}
        return found

    def _make(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[Guess]]:
        raise NotImplementedError

    def keep(self, running: Iterable[Sequence]) -> None:
        """Forget all others, and what was guessed last."""
        self._offered = {}

    def chances(self, most: int) -> list[float]:
        """Those of its next guesses, before it makes any."""
        return [self.share**ahead for ahead in range(1, most + 1)]

    def is_due(self) -> bool:
        """Whether it should be tried although it did not pay."""
        self._since += 1
        return self._since >= _TRIES

    def saw(self, sequence: Sequence) -> None:
        """The answer went on: learn from what was drawn, whether or not what was guessed was computed."""
        known, offered = self._offered.get(sequence, (0, []))
        for guess, id in zip(offered, sequence.ids[known:], strict=False):
            self.share += _NEWEST * ((guess == id) - self.share)
            if guess != id:
                break

    @contextmanager
    def timed(self) -> Iterator[None]:
        """One guess of all sequences is made."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds = seconds if not self.seconds else self.seconds + 0.1 * (seconds - self.seconds)
