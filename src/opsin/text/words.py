"""Words and what they become: where text can be cut without changing how it merges, and a memory of cut pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

import regex

SPACE: Final = "\u2581"
MAX_CHARACTERS: Final = 1 << 21
_WORD: Final = 8  # a word counts as so many characters more
_AT_ONCE: Final = 1 << 15


class WordMemory:
    """Ids of words that came before. It begins anew when it has grown large. `encode` gives those of a new word."""

    def __init__(self, encode: Callable[[str], tuple[int, ...]]) -> None:
        self._encode = encode
        self._known: dict[str, tuple[int, ...]] = {}
        self._room = MAX_CHARACTERS

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of all these words, one after the other. What is new is encoded once, before anything is looked up."""
        ids: list[int] = []
        for start in range(0, len(words), _AT_ONCE):
            some = words[start : start + _AT_ONCE]
            self._learn(some)
            ids.extend(chain.from_iterable(map(self._known.__getitem__, some)))
        return ids

    def _learn(self, words: Iterable[str]) -> None:
        """Encodes those of the words that are new."""
        if self._room < 0:
            self._known, self._room = {}, MAX_CHARACTERS
        known = self._known
        new = [*set(words).difference(known)]
        for word in new:
            known[word] = self._encode(word)
        self._room -= sum(map(len, new)) + _WORD * len(new)


def cut_pattern(joined: Iterable[str]) -> regex.Pattern[str]:
    """Matches a word: spaces (U+2581) and what follows, up to the next space.

    `joined` are the characters that some token has before a space: behind them text is not cut, for a merge could
    reach over that place. Anywhere else it could not, so words merge alone as they do in the whole text.
    """
    kept = "".join(regex.escape(character) for character in sorted(set(joined) - {SPACE}))
    rest = f"(?:[^{SPACE}]+|(?<=[{kept}]){SPACE}+)" if kept else f"[^{SPACE}]"
    return regex.compile(f"({SPACE}+{rest}*|{rest}+)")
