"""Words and what they become: where text can be cut without changing how it merges, and a memory of cut pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import regex

SPACE: Final = "\u2581"
MAX_REMEMBERED: Final = 1 << 17
LONGEST_REMEMBERED: Final = 64


class WordMemory(dict[str, tuple[int, ...]]):
    """Ids of words. `memory[word]` encodes a word that is new; a long one is not kept, for it hardly comes again."""

    def __init__(self, encode: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._encode(word)
        if len(word) <= LONGEST_REMEMBERED:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


def cut_pattern(joined: Iterable[str]) -> regex.Pattern[str]:
    """Matches a word: spaces (U+2581) and what follows, up to the next space.

    `joined` are the characters that some token has before a space: behind them text is not cut, for a merge could
    reach over that place. Anywhere else it could not, so words merge alone as they do in the whole text.
    """
    kept = "".join(regex.escape(character) for character in sorted(set(joined) - {SPACE}))
    rest = f"(?:[^{SPACE}]+|(?<=[{kept}]){SPACE}+)" if kept else f"[^{SPACE}]"
    return regex.compile(f"({SPACE}+{rest}*|{rest}+)")
