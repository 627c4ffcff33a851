"""Guesses of what comes next, read off the text itself: what followed the last ids when they were there before.

Prompt look-up (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). How often such guesses are right is counted
by how long the repetition is, whether or not anybody computed them: so it is known where none pays.

Thread: the submitter's makes one, then it is the engine's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.arrays import Ints
from opsin.engine.repetition import History

_LENGTHS = (1, 2, 3, 4, 5, 8, 16)  # of repetitions, from each of which on another chance holds
_CHANCES = (0.15, 0.35, 0.5, 0.6, 0.7, 0.85, 0.93)  # where nothing was counted yet
_WEIGHT = 4.0  # guesses that this is worth
_FADING = 0.97  # of what was counted, with each that is counted
_SETTLED = 4  # ids from which on a repetition is not compared with others any more
_LONGEST = 16  # ids that are compared
_COPY = 8  # ids from which on a repetition is a copy, which goes on behind a change
_CHANGE = 8  # ids that a change may have, in what is copied and in the copy
_LEAST = 0.02  # the chance of a guess that is worth naming


class Guess(NamedTuple):
    """An id, and the chance that it and all guesses before it are right."""

    id: int
    chance: float


class LookUp:
    """What one sequence repeats, followed id by id. `ids` are those of its prompt."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._history = History(ids)
        self._place = 0  # of the id that comes next, if the repetition goes on
        self._length = 0  # ids that were repeated; 0 for no repetition
        self._left, self._since = 0, _CHANGE  # where a copy was left, and ids since then
        self._right = [_WEIGHT * chance for chance in _CHANCES]
        self._seen = [_WEIGHT] * len(_CHANCES)
        self._find()

    def append(self, id: int) -> None:
        """The next id."""
        goes_on = False
        self._since += 1
        if self._length:
            goes_on = int(self._history.last(-1)[self._place]) == id
            self._count(goes_on)
            if self._length >= _COPY and not goes_on:
                self._left, self._since = self._place, 0
        self._history.append(id)
        if goes_on:
            self._place, self._length = self._place + 1, self._length + 1
        if self._length < _SETTLED or not goes_on:
            self._find()

    def guesses(self, most: int) -> list[Guess]:
        """At most so many ids that may come next. A repetition of what came just before goes round."""
        if not self._length:
            return []
        ids, found, chance = self._history.last(-1), list[Guess](), 1.0
        period = len(ids) - self._place
        for ahead in range(most):
            chance *= self._chance(self._length + ahead)
            if chance < _LEAST:
                break
            found.append(Guess(int(ids[self._place + ahead % period]), chance))
        return found

    def _chance(self, length: int) -> float:
        """Of the next id, after a repetition so long."""
        group = bisect_right(_LENGTHS, length) - 1
        return self._right[group] / self._seen[group]

    def _count(self, is_right: bool) -> None:
        group = bisect_right(_LENGTHS, self._length) - 1
        self._right[group] = _FADING * self._right[group] + is_right
        self._seen[group] = _FADING * self._seen[group] + 1

    def _find(self) -> None:
        """The longest repetition of the last ids, of these the last; or where a copy goes on behind a change."""
        ids = self._history.last(-1)
        self._length = 0
        if len(ids) < 2:
            return
        ends = np.flatnonzero(ids[:-1] == ids[-1])
        behind = ends[(ends >= self._left) & (ends < self._left + _CHANGE)] if 0 < self._since < _CHANGE else ends[:0]
        self._longest(ids, ends)
        if len(behind) and self._length < _SETTLED:
            self._place, self._length = int(behind[0]) + 1, _SETTLED

    def _longest(self, ids: Ints, ends: npt.NDArray[np.intp]) -> None:
        while len(ends):
            self._place, self._length = int(ends[-1]) + 1, self._length + 1
            if self._length == min(_LONGEST, len(ids) - 1):
                return
            ends = ends[ends >= self._length]
            ends = ends[ids[ends - self._length] == ids[-1 - self._length]]
