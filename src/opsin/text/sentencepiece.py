"""SentencePiece's byte-pair kind (the model `llama`): the pair that makes the best-scored token is merged first.

Merging never crosses a place where no token of the vocabulary has these two characters side by side. Where a word
begins is nearly always such a place, so text is cut there and words are remembered with their ids; the result is that
of merging the whole text at once.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Final

from opsin.text.vocabulary import CONTROL, UNKNOWN, Vocabulary
from opsin.text.words import SPACE, WordMemory, cut_pattern

_SHORT: Final = 48  # characters: up to here looking through all pairs is faster than a heap
_NEVER: Final = float("-inf")


class SentencePiece:
    """Encodes ordinary text, without special tokens, by the scores of the tokens."""

    def __init__(self, vocabulary: Vocabulary, *, space_prefix: bool) -> None:
        self._space_prefix = space_prefix
        usable = [id for id, kind in enumerate(vocabulary.kinds) if kind not in (CONTROL, UNKNOWN)]
        self._ids = {vocabulary.texts[id]: id for id in usable}
        self._scores = {vocabulary.texts[id]: vocabulary.scores[id] for id in usable}
        self._bytes = [self._find_byte(value, vocabulary.unknown) for value in range(256)]
        self._words = cut_pattern(
            text[place - 1] for text in self._ids for place in range(1, len(text)) if text[place] == SPACE
        )
        self._remembered = WordMemory(self._encode_word)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first`: nothing or a special token stands before it, and a space may be put there."""
        text = (SPACE if first and self._space_prefix else "") + text.replace(" ", SPACE)
        remembered = self._remembered
        return list(chain.from_iterable([remembered[word] for word in self._words.findall(text)]))

    def _encode_word(self, word: str) -> tuple[int, ...]:
        symbols = self._merge_short(word) if len(word) <= _SHORT else self._merge_long(word)
        return tuple(chain.from_iterable([self._spell(symbol) for symbol in symbols]))

    def _merge_short(self, word: str) -> list[str]:
        score = self._scores.get
        symbols = list(word)
        pairs = [score(left + right, _NEVER) for left, right in zip(symbols, symbols[1:], strict=False)]
        while pairs:
            best = max(pairs)
            if best == _NEVER:
                break
            place = pairs.index(best)  # the leftmost of equals
            symbols[place] += symbols.pop(place + 1)
            del pairs[place]
            if place < len(pairs):
                pairs[place] = score(symbols[place] + symbols[place + 1], _NEVER)
            if place > 0:
                pairs[place - 1] = score(symbols[place - 1] + symbols[place], _NEVER)
        return symbols

    def _merge_long(self, word: str) -> list[str]:
        """The same with a heap. `following[i]` is the symbol after the one that begins at i, `preceding` before."""
        score = self._scores.get
        count = len(word)
        symbols = list(word)
        following = list(range(1, count + 1))
        preceding = list(range(-1, count - 1))
        heap = [
            (-value, place, 2)
            for place in range(count - 1)
            if (value := score(word[place : place + 2])) is not None
        ]  # fmt: skip
        heapify(heap)
        while heap:
            _, left, size = heappop(heap)
            right = following[left]
            if not symbols[left] or right >= count or len(symbols[left]) + len(symbols[right]) != size:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            following[left] = after = following[right]
            if after < count:
                preceding[after] = left
            for one, other in ((preceding[left], left), (left, after)):
                if one >= 0 and other < count:
                    text = symbols[one] + symbols[other]
                    value = score(text)
                    if value is not None:
                        heappush(heap, (-value, one, len(text)))
        return [symbol for symbol in symbols if symbol]

    def _spell(self, symbol: str) -> tuple[int, ...]:
        id = self._ids.get(symbol)
        if id is not None:
            return (id,)
        found = [self._bytes[byte] for byte in _to_bytes(symbol)]
        return tuple(id for id in found if id is not None)

    def _find_byte(self, value: int, unknown: int | None) -> int | None:
        return self._ids.get(f"<0x{value:02X}>", self._ids.get(chr(value) if value < 128 else "", unknown))


def _to_bytes(text: str) -> bytes:
    """Bytes that were no UTF-8 stand in a str as lone surrogates; one that never was a byte becomes U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"\xef\xbf\xbd"
