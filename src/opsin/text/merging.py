"""Merges many words at once, with arrays: what a loop over one word does in 5 to 25 microseconds takes 1 or 2 here.

Words are rows of a matrix of symbols. In each round every row merges its best pair, the leftmost of equals, which is
the order in which one word alone merges; rows that have no pair left leave. All that waits for memory, looking pairs
up in tables of megabytes, is done for thousands of pairs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from secrets import randbits
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]

LONGEST: Final = 24  # characters: longer words are merged one by one
PATIENCE: Final = 1 << 17  # characters of new words that come before it is worth making the tables
_AT_ONCE: Final = 2048
_NOTHING: Final = (1 << 24) - 1  # fills the rows of shorter words


class Merges:
    """Pairs of symbols and what they become: `left[i]` and `right[i]` the symbol `made[value[i]]`.

    Smaller values merge first, but those of equal `rank` count as equal; without ranks each has its own. A pair that
    comes twice counts as it comes last. Symbols are smaller than 2^24 - 1.
    """

    def __init__(self, left: Ints, right: Ints, value: Ints, made: Ints, rank: Ints | None = None) -> None:
        self._none = len(made)
        self._made = made
        self.largest = int(made.max(initial=0))
        self._rank = None if rank is None else np.append(rank, np.iinfo(np.int32).max).astype(np.int32)
        keys = _join(left, right)[::-1]
        keys, first = np.unique(keys, return_index=True)
        self._values = np.append(value[::-1][first], self._none).astype(np.int32)
        self._keys = np.append(keys, -1)
        bits = len(keys).bit_length() + 1
        self._shift = np.uint64(64 - bits)
        self._factor = np.uint64(randbits(63) * 2 + 1)  # no file can know which pairs meet in a slot
        self._table = self._build(keys, bits)

    def merge(self, symbols: Ints, lengths: Sequence[int]) -> list[tuple[int, ...]]:
        """The symbols that are left of each word. `symbols` are those of all words; no word is empty."""
        sizes = np.asarray(lengths, np.intp)
        starts = np.cumsum(sizes) - sizes
        order = np.argsort(sizes, kind="stable")
        merged: list[tuple[int, ...]] = [()] * len(sizes)
        for begin, end in _share(sizes[order]):
            numbers = order[begin:end]
            size = sizes[numbers]
            columns = np.arange(max(2, int(size[-1])))
            places = np.minimum(starts[numbers][:, None] + columns, len(symbols) - 1)
            rows = np.where(columns < size[:, None], symbols[places], np.int32(_NOTHING))
            for some, left in self._merge_rows(rows):
                gone = rows.shape[1] - left.shape[1]
                lists = left.tolist()
                if size[0] < rows.shape[1]:
                    lists = [row[:count] for row, count in zip(lists, (size[some] - gone).tolist(), strict=True)]
                for number, row in zip(numbers[some].tolist(), map(tuple, lists), strict=True):
                    merged[number] = row
        return merged

    def _merge_rows(self, rows: Ints) -> Iterator[tuple[Places, Ints]]:
        """Yields numbers of rows that merge no further, with their symbols. Each round makes rows one shorter."""
        numbers: Places = np.arange(len(rows))
        values = self._find(rows[:, :-1], rows[:, 1:])
        while True:
            place = (values if self._rank is None else self._rank[values]).argmin(axis=1)
            each = np.arange(len(rows))
            best = values[each, place]
            going = best != self._none
            if not going.all():
                yield numbers[~going], rows[~going]
                rows, values, numbers = rows[going], values[going], numbers[going]
                place, best, each = place[going], best[going], each[: len(rows)]
            if not len(rows):
                return
            rows[each, place] = self._made[best]
            kept = np.ones(rows.shape, np.bool_)
            kept[each, place + 1] = False
            values = values[kept[:, 1:]].reshape(len(rows), -1)
            rows = rows[kept].reshape(len(rows), -1)
            if rows.shape[1] == 1:
                yield numbers, rows
                return
            self._renew(rows, values, place)

    def _renew(self, rows: Ints, values: Ints, place: Places) -> None:
        """Looks up the pairs on both sides of the symbols that were made."""
        after = np.flatnonzero(place < rows.shape[1] - 1)
        before = np.flatnonzero(place)
        row = np.concatenate((after, before))
        column = np.concatenate((place[after], place[before] - 1))
        values[row, column] = self._find(rows[row, column], rows[row, column + 1])

    def _find(self, left: Ints, right: Ints) -> Ints:
        """The value of each pair, or that of none."""
        keys = _join(left, right)
        slots = self._slots(keys)
        found = self._table[slots]
        wrong = np.nonzero((self._keys[found] != keys) & (found != len(self._keys) - 1))
        while len(wrong[0]):
            slots[wrong] = self._next(slots[wrong])
            again = found[wrong] = self._table[slots[wrong]]
            still = (self._keys[again] != keys[wrong]) & (again != len(self._keys) - 1)
            wrong = tuple(axis[still] for axis in wrong)
        return self._values[found]

    def _build(self, keys: Longs, bits: int) -> Ints:
        """Open addressing: number of the key in each slot, the count of keys where it is empty."""
        empty = len(keys)
        table = np.full(1 << bits, empty, np.int32)
        waiting = np.arange(len(keys), dtype=np.int32)
        slots = self._slots(keys)
        while len(waiting):
            free = table[slots] == empty
            table[slots[free]] = waiting[free]
            left = table[slots] != waiting
            waiting, slots = waiting[left], (slots[left] + 1) & ((1 << bits) - 1)
        return table

    def _slots(self, keys: Longs) -> Longs:
        slots: Longs = ((keys.view(np.uint64) * self._factor) >> self._shift).view(np.int64)
        return slots

    def _next(self, slots: Longs) -> Longs:
        return (slots + 1) & (len(self._table) - 1)


def _share(sizes: Places) -> Iterator[tuple[int, int]]:
    """Cuts sorted words into groups of one size, or, where these are few, of several."""
    begin = 0
    while begin < len(sizes):
        end = min(begin + _AT_ONCE, len(sizes))
        alike = int(np.searchsorted(sizes, sizes[begin], side="right"))
        if alike - begin >= _AT_ONCE // 8:
            end = min(end, alike)
        yield begin, end
        begin = end


def _join(left: Ints, right: Ints) -> Longs:
    keys: Longs = (left.astype(np.int64) << 24) | right
    return keys


class Together:
    """Ids of words without merging one after the other, once enough of them came to be worth the tables.

    `encode` gives the ids of one word, `read` the symbols of many and how many each has, `build` the pairs. Symbols
    from `size` on are no tokens: `spell` gives the ids of one.
    """

    def __init__(
        self,
        encode: Callable[[str], tuple[int, ...]],
        read: Callable[[Sequence[str]], tuple[Ints, list[int]]],
        build: Callable[[], Merges],
        *,
        size: int,
        spell: Callable[[int], tuple[int, ...]],
    ) -> None:
        self._encode = encode
        self._read = read
        self._build = build
        self._size = size
        self._spell = spell
        self._patience = PATIENCE
        self._merges: Merges | None = None

    def encode(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of each word."""
        if self._merges is None:
            self._patience -= sum(map(len, words))
            if self._patience > 0:
                return [self._encode(word) for word in words]
            self._merges = self._build()
        short = [word for word in words if len(word) <= LONGEST]
        if not short:
            return [self._encode(word) for word in words]
        symbols, lengths = self._read(short)
        found = self._merges.merge(symbols, lengths)
        if max(int(symbols.max()), self._merges.largest) >= self._size:
            found = [self._write(row) for row in found]
        if len(short) == len(words):
            return found
        ids = iter(found)
        return [next(ids) if len(word) <= LONGEST else self._encode(word) for word in words]

    def _write(self, symbols: tuple[int, ...]) -> tuple[int, ...]:
        if max(symbols) < self._size:
            return symbols
        return tuple(chain.from_iterable([(id,) if id < self._size else self._spell(id) for id in symbols]))
