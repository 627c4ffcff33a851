"""Where a text can be cut so that its parts merge as they do within the whole.

Merging never crosses a place where no text of the vocabulary has these two characters side by side. Scripts without
spaces, Chinese above all, so fall into short parts that come again, and long words need not be merged as one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from sys import intern
from threading import Lock

import numpy as np
import numpy.typing as npt

from opsin.text.words import WordCache

BETWEEN = "\0"  # stands between the texts of a vocabulary
LONG = 12  # characters: shorter words merge as one
PATIENCE = 4096  # characters of long words that come before it is worth looking through the vocabulary
WINDOW = 2048  # characters: what cannot be cut merges so many at once
_UNSURE = 8  # symbols at the end of a window
_AT_ONCE = 1 << 18
_RARE = 0x20000
_BEFORE_BYTE = re.compile(f"([^\ud800-\udfff{BETWEEN}])(?=[\udc80-\udcff])")
_AFTER_BYTE = re.compile(f"(?<=[\udc80-\udcff])([^\ud800-\udfff{BETWEEN}])")
_BYTE_BEFORE_CHARACTER = re.compile("[\udc80-\udcbf](?=[\udcc0-\udcff])")
_FACTORS = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)


class MergeBoundaries:
    """Knows which characters may merge with their neighbours.

    `texts` are those of the vocabulary with BETWEEN between them; bytes that are only a part of a character stand in
    them as lone surrogates. Where such bytes meet a character, or each other, all characters that they may belong to
    count as joined on that side, and so do all beyond the second plane. Pairs are kept as bits under their hashes:
    two that share one keep a word whole which could be cut.
    """

    def __init__(self, texts: str) -> None:
        codes = _read_codes(texts)
        self._shift = np.uint32(32 - min(28, len(codes).bit_length() + 3))
        self._pairs = np.zeros(1 << (32 - int(self._shift)), np.bool_)
        self._pairs[self._hash(codes)] = True
        self._to_the_right = self._mark(_BEFORE_BYTE.findall(texts))
        self._to_the_left = self._mark(_AFTER_BYTE.findall(texts))
        for byte in {ord(byte) - 0xDC80 for byte in _BYTE_BEFORE_CHARACTER.findall(texts)}:
            self._to_the_right[0x80 + byte :: 64] = True

    def cut(self, word: str) -> list[str]:
        """The parts of `word`."""
        return [*self.cut_text(word)]

    def cut_text(self, text: str) -> Iterator[str]:
        """The parts of a text of any length."""
        begin = 0
        for start in range(0, len(text), _AT_ONCE):
            for place in self._find(text[start : start + _AT_ONCE + 1]):
                yield text[begin : start + place]
                begin = start + place
        yield text[begin:]

    def _find(self, text: str) -> list[int]:
        """The places at which `text` can be cut."""
        codes = _read_codes(text)
        joined = self._pairs[self._hash(codes)] | self._to_the_right[codes[:-1]] | self._to_the_left[codes[1:]]
        places: list[int] = (np.flatnonzero(~joined) + 1).tolist()
        return places

    def _hash(self, codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Of each character and the next."""
        return (codes[:-1] * _FACTORS[0] + codes[1:] * _FACTORS[1]) >> self._shift

    @staticmethod
    def _mark(characters: Sequence[str]) -> npt.NDArray[np.bool_]:
        marked = np.zeros(sys.maxunicode + 1, np.bool_)
        marked[_RARE:] = True
        marked[_read_codes("".join(characters))] = True
        return marked


class ChunkedBpe:
    """Encodes words, long ones by their parts. `read` gives the texts for `MergeBoundaries`, when they are needed.

    `encode` gives the ids of a short word, or of a part, in portions. Threads may share one: `MergeBoundaries` never
    change, the lock is for making them once, and `_patience` need not be exact.
    """

    def __init__(self, encode: Callable[[str], Iterable[Sequence[int]]], read: Callable[[], str]) -> None:
        self._encode = encode
        self._read = read
        self._patience = PATIENCE
        self._boundaries: MergeBoundaries | None = None
        self._making = Lock()
        self._part_cache = WordCache(encode)

    def encode(self, word: str) -> Iterable[Sequence[int]]:
        """The ids of the whole word, in portions."""
        boundaries = self.find_boundaries(len(word)) if len(word) > LONG else None
        return self._encode(word) if boundaries is None else self._part_cache.encode(boundaries.cut_text(word))

    def find_boundaries(self, size: int) -> MergeBoundaries | None:
        """The places to cut at, made when enough characters came that are worth it; `size` more come now."""
        self._patience -= size
        if self._boundaries is None and self._patience <= 0:
            with self._making:
                self._boundaries = self._boundaries or MergeBoundaries(self._read())
        return self._boundaries


def merge_in_windows(text: str, merge: Callable[[str], Sequence[str]]) -> list[str]:
    """The symbols that `merge` makes of a long text, found in windows: in time that grows as the text does.

    `merge` merges the best pair of neighbours first, the leftmost of equals, until none is left. Two symbols stay apart
    in the whole if they do alone: the first merge across the place between them would depend on nothing but the two. So
    symbols of which each two neighbours stay apart are those of the whole.
    """
    symbols: list[str] = []
    begin, size, back = 0, WINDOW, 1
    while begin < len(text):
        found = merge(text[begin : begin + size])
        if symbols and [*merge(symbols[-1] + found[0])] != [symbols[-1], found[0]]:
            begin -= sum(map(len, symbols[-back:]))
            del symbols[-back:]
            size, back = 2 * size, 2 * back
        elif begin + size < len(text) and len(found) <= _UNSURE:
            size *= 2
        else:
            kept = found if begin + size >= len(text) else found[:-_UNSURE]  # what follows could change the last
            symbols += map(intern, kept)  # millions of texts of their own would all be let go at once
            begin += sum(map(len, kept))
            size, back = WINDOW, 1
    return symbols


def _read_codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
