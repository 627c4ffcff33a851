"""What was said before, and what is taken from the logits of ids for it: penalties, and DRY ("don't repeat yourself").

Thread: the submitter's makes them, then they are the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from opsin.engine.token_rules import Breakers, Ids

Wide = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Number = float | Wide
_LARGEST_EXPONENT = 88.7228391  # of e, in float32
_LONGEST_BREAKER = 21  # ids: a head and its tail


class History:
    """Ids of a prompt's text and of its answer, as an array that grows."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.count = self.prompt = len(ids)
        self._room = np.empty(2 * len(ids) + 64, np.int32)
        self._room[: self.count] = ids

    def append(self, id: int) -> None:
        """The answer's next."""
        if self.count == len(self._room):
            self._room = np.concatenate((self._room, np.empty_like(self._room)))
        self._room[self.count] = id
        self.count += 1

    def last(self, count: int) -> npt.NDArray[np.int32]:
        """The last `count`, or all where that is negative or too many. A view."""
        return self._room[max(0, self.count - count) if count >= 0 else 0 : self.count]

    def ends_with(self, ids: Ids) -> bool:
        """Whether these are the last ids of the answer."""
        start = self.count - len(ids)
        return start >= self.prompt and self._room[start : self.count].tolist() == [*ids]


def penalised(logits: Wide, counts: Numbers, *, repeat: Number, each: Number, once: Number) -> Wide:
    """Logits of ids that were seen so often. The repeat penalty (Keskar et al. 2019) multiplies what is not positive.

    `each` is taken for each time that an id was seen, `once` for all together.
    """
    less: Wide = np.where(logits > 0, logits / repeat, logits * repeat)
    less -= counts * each + once
    return less


class DryWatch:
    """How long a run of ids each next id would repeat, followed id by id.

    For each place of the window it keeps how many ids up to there equal those up to the end: one more id makes of that
    one more where the id stands at the next place, and nothing elsewhere.
    """

    def __init__(self, window: int, breakers: Breakers, ids: Sequence[int]) -> None:
        self._breakers = breakers
        last = [*ids] if window < 0 else [*ids[max(0, len(ids) - window) :]]
        self._most = window if window >= 0 else None
        self._ids = np.array(last, np.int32)  # the window
        self._runs = _common_suffixes(last)  # of each place but the last one: [len(ids) - 1]
        self._since: int | None = None  # ids after the last breaker's first id, that one included
        self._reach = 0  # ids that a run may have, by this breaker
        for distance in range(len(last)):
            if self._found_breaker(distance, distance):
                break

    def append(self, id: int) -> None:
        """The next id."""
        kept, runs = self._ids, self._runs
        if self._most is not None and len(kept) >= self._most:
            kept, runs = kept[1:], np.minimum(runs[1:], np.arange(1, len(runs)))
        # Place i continues the run of place i - 1; before the first place there is none.
        before = np.concatenate((np.zeros(1, np.int64), runs))[: len(kept)]
        self._runs = np.where(kept == id, before + 1, 0)
        self._ids = np.append(kept, np.int32(id))
        if self._since is not None:
            self._since += 1
            self._reach += 1
        for distance in range(min(len(self._ids), _LONGEST_BREAKER)):
            if self._found_breaker(distance, distance):
                return

    def _found_breaker(self, distance: int, longest: int) -> bool:
        """Whether a breaker begins so many ids before the last one; then it is kept."""
        place = len(self._ids) - 1 - distance
        tails = self._breakers.tails(int(self._ids[place]))
        fitting = [
            len(tail)
            for tail in tails
            if len(tail) <= longest and self._ids[place + 1 : place + 1 + len(tail)].tolist() == [*tail]
        ]
        if fitting:
            self._since, self._reach = distance + 1, distance - max(fitting)
        return bool(fitting)

    def repeated(self, allowed: int) -> dict[int, int]:
        """Ids that would make a run longer, and how long the run is without them: `allowed` and more."""
        count = len(self._ids)
        is_inside = self._since is not None and self._since <= count
        limit = self._reach if is_inside else count
        if count <= allowed or limit < allowed:
            return {}
        runs = np.minimum(self._runs, limit)
        places = np.flatnonzero(runs >= allowed)
        places = places[np.argsort(runs[places], kind="stable")]  # the longest run of an id comes last, and stays
        found = dict(zip(self._ids[places + 1].tolist(), runs[places].tolist(), strict=True))
        return {id: run for id, run in found.items() if () not in self._breakers.tails(id)}


def dry_penalties(repeated: dict[int, int], *, multiplier: float, base: float, allowed: int) -> Wide:
    """What is taken from the logits of these ids: multiplier x base ** (run - allowed), finite in float32."""
    runs = np.fromiter(repeated.values(), np.float64, len(repeated)) - allowed
    if base > 1.000001:
        runs = np.minimum(runs, math.floor(_LARGEST_EXPONENT / math.log(base)) or np.inf)
    with np.errstate(over="ignore"):
        taken: Wide = multiplier * base**runs
    return taken


def _common_suffixes(ids: Sequence[int]) -> Numbers:
    """For each place but the last: how many ids up to there equal those up to the end (Z-algorithm, from the end)."""
    backwards, count = [*reversed(ids)], len(ids)
    same = [0] * count
    left = right = 0  # the part that is known to equal the beginning, and reaches furthest
    for place in range(1, count):
        length = min(right - place, same[place - left]) if place < right else 0
        while place + length < count and backwards[length] == backwards[place + length]:
            length += 1
        same[place] = length
        if place + length > right:
            left, right = place, place + length
    return np.array(same[:0:-1], np.int64)
