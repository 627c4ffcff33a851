"""Words and what they become: where text can be cut without changing how it merges, and a cache of cut pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from threading import Lock

import regex

SPACE = "\u2581"
MAX_CHARACTERS = 1 << 21
# `regex` and not `re`, here and in all that reads people's texts: it lets go of the interpreter while it looks.
SURROGATES = regex.compile("[\ud800-\udfff]")  # bytes that were no UTF-8 stand in a str as these
_WORD = 8  # a word counts as so many characters more
_AT_ONCE = 1 << 12  # words
_LONG = 256  # characters: longer words are not remembered


class WordCache:
    """Ids of words that came before. It begins anew when it has grown large.

    `encode` gives those of a new word, in portions.

    Any number of threads may share one. Nothing is ever taken out of a dict of words or changed in it, and what a
    thread has put into one it looks up in the same one, whatever `_known` is by then. The lock is for the counting.
    """

    def __init__(self, encode: Callable[[str], Iterable[Sequence[int]]]) -> None:
        self._encode = encode
        self._known: dict[str, tuple[int, ...]] = {}
        self._room = MAX_CHARACTERS
        self._lock = Lock()

    def encode(self, words: Iterable[str]) -> Iterator[Sequence[int]]:
        """Ids of all these words, one after the other, in portions."""
        left = iter(words)
        while some := [*islice(left, _AT_ONCE)]:
            if max(map(len, some)) <= _LONG:
                yield self._look_up(some)
                continue
            for is_long, group in groupby(some, _is_long):
                if is_long:
                    yield from chain.from_iterable(map(self._encode, group))
                else:
                    yield self._look_up([*group])

    def _look_up(self, words: Sequence[str]) -> list[int]:
        return [*chain.from_iterable(map(self._learn(words).__getitem__, words))]

    def _learn(self, words: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """A dict with all of these words. Each that is new is encoded once."""
        known = self._known
        new = [word for word in set(words) if word not in known]
        for word in new:
            known[word] = tuple(chain.from_iterable(self._encode(word)))
        if new:
            with self._lock:
                self._room -= sum(map(len, new)) + _WORD * len(new)
                if self._room < 0:
                    self._known, self._room = {}, MAX_CHARACTERS
        return known


def _is_long(word: str) -> bool:
    return len(word) > _LONG


def cut_pattern(joined: Iterable[str]) -> regex.Pattern[str]:
    """Matches a word: spaces (U+2581) and what follows, up to the next space.

    `joined` are the characters that some token has before a space: behind them text is not cut, for a merge could
    reach over that place. Anywhere else it could not, so words merge alone as they do in the whole text.
    """
    kept = "".join(regex.escape(character) for character in sorted(set(joined) - {SPACE}))
    rest = f"(?:[^{SPACE}]+|(?<=[{kept}]){SPACE}+)" if kept else f"[^{SPACE}]"
    return regex.compile(f"({SPACE}+{rest}*|{rest}+)")
