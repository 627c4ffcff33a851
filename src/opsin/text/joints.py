"""Where a text can be cut so that its parts merge as they do within the whole.

Merging never crosses a place where no text of the vocabulary has these two characters side by side. Scripts without
spaces, Chinese above all, so fall into short parts that come again, and long words need not be merged as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from operator import add
from typing import Final

from opsin.text.words import WordMemory

LONG: Final = 12  # characters: shorter words merge as one
PATIENCE: Final = 4096  # characters of long words that come before it is worth looking through the vocabulary
_RARE: Final = "\U00020000"
_BEFORE_BYTE: Final = re.compile("([^\ud800-\udfff\n])(?=[\udc80-\udcff])")
_AFTER_BYTE: Final = re.compile("(?<=[\udc80-\udcff])([^\ud800-\udfff\n])")
_BYTE_BEFORE_CHARACTER: Final = re.compile("[\udc80-\udcbf](?=[\udcc0-\udcff])")


class Joints:
    """Knows which characters may merge with their neighbours.

    `texts` are those of the vocabulary, a line each; bytes that are only a part of a character stand in them as lone
    surrogates. Where such bytes meet a character, or each other, all characters that they may belong to count as
    joined on that side.
    """

    def __init__(self, texts: str) -> None:
        self._pairs = frozenset(map(add, texts, texts[1:]))
        last_bytes = {ord(byte) - 0xDC80 for byte in _BYTE_BEFORE_CHARACTER.findall(texts)}
        ending = {chr(code) for byte in last_bytes for code in range(0x80 + byte, ord(_RARE), 64)}
        self._to_the_right = frozenset(_BEFORE_BYTE.findall(texts)) | ending
        self._to_the_left = frozenset(_AFTER_BYTE.findall(texts))

    def cut(self, word: str) -> list[str]:
        """The parts of `word`. A character beyond the second plane is never cut from its neighbours."""
        if max(word) >= _RARE:
            return [word]
        pairs, right, left = self._pairs, self._to_the_right, self._to_the_left
        cuts = [
            place
            for place, pair in enumerate(map(add, word, word[1:]), 1)
            if pair not in pairs and pair[0] not in right and pair[1] not in left
        ]
        return [word[start:end] for start, end in pairwise([0, *cuts, len(word)])]


class Parts:
    """Encodes words, long ones by their parts. `read` gives the texts for `Joints`, when they are needed."""

    def __init__(self, encode: Callable[[str], tuple[int, ...]], read: Callable[[], str]) -> None:
        self._encode = encode
        self._read = read
        self._patience = PATIENCE
        self._joints: Joints | None = None
        self._remembered = WordMemory(encode)

    def encode(self, word: str) -> tuple[int, ...]:
        """The ids of the whole word."""
        if len(word) <= LONG:
            return self._encode(word)
        if self._joints is None:
            self._patience -= len(word)
            if self._patience > 0:
                return self._encode(word)
            self._joints = Joints(self._read())
        return tuple(self._remembered.encode(self._joints.cut(word)))
