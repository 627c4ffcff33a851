"""How long steps of few rows take, learned as they run: so that it is known what one row more costs.

Thread: the engine's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

MOST = 64  # rows of a step that is looked at
_MORE = 0.05  # of a step's time, that one row more is supposed to cost where nobody knows: little, so that it is tried
_NEWEST = 0.2  # weight of the newest time
_STALE, _RARE = 600, 60  # steps after which a time is forgotten, and for each time that it was seen
_OFTEN = 3  # steps after which a time is known
_WORTH = 1.02  # what guesses must promise, of the ids that come without


@dataclass
class _Seen:
    """Steps of so many rows: how long they take, how many there were, and when the last one was."""

    seconds: float
    times: int
    last: int


class StepCosts:
    """Seconds of steps by their rows. What was not seen is supposed to be cheap, so that it is tried."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._steps = 0

    def saw(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long. One that took far longer than others had another reason."""
        if not 0 < rows <= MOST:
            return
        self._steps += 1
        seen = self._seen.setdefault(rows, _Seen(seconds, 0, 0))
        seen.times, seen.last = seen.times + 1, self._steps
        seen.seconds += max(_NEWEST, 1 / seen.times) * (min(seconds, 2 * seen.seconds) - seen.seconds)
        for known, one in list(self._seen.items()):
            if one.last < self._steps - min(_STALE, _RARE * one.times):
                del self._seen[known]

    def knows(self, rows: int) -> bool:
        """Whether steps of so many rows were seen more than once or twice, lately."""
        return rows in self._seen and self._seen[rows].times >= _OFTEN

    def of(self, rows: int) -> float:
        """Seconds of such a step; where none was seen so far, only ratios count."""
        known = sorted(self._seen)
        if not known:
            return 1 + _MORE * rows
        place = bisect_left(known, rows)
        high = self._seen[known[place]].seconds if place < len(known) else None
        if place == 0 or (place < len(known) and known[place] == rows):
            assert high is not None
            return high
        low = known[place - 1]
        guessed = self._seen[low].seconds * (1 + _MORE * (rows - low))
        return guessed if high is None else min(guessed, high)

    def best(self, rows: int, ids: int, chances: Sequence[float]) -> int:
        """How many guesses pay in a step of `rows` rows that gives `ids` ids without; likeliest come first.

        Each takes a row, and gives an id with its chance. The most ids a second win.
        """
        best, rate, expected = 0, _WORTH * ids / self.of(rows), float(ids)
        for count, chance in enumerate(chances, 1):
            expected += chance
            now = expected / self.of(rows + count)
            if now > rate:
                best, rate = count, now
        return best
