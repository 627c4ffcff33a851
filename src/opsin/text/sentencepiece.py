"""SentencePiece's byte-pair kind (the model `llama`): the pair that makes the best-scored token is merged first.

Merging never crosses a place where no token of the vocabulary has these two characters side by side. Where a word
begins is nearly always such a place, so text is cut there and words are remembered with their ids; the result is that
of merging the whole text at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain

from opsin.text.merge_boundaries import BETWEEN, WINDOW, ChunkedBpe, merge_in_windows
from opsin.text.vocabulary import CONTROL, UNKNOWN, Vocabulary
from opsin.text.words import SPACE, WordCache, cut_pattern

_SHORT = 48  # characters: up to here looking through all pairs is faster than a heap
_RUNS = re.compile(rf"{SPACE}*\w+|[^\w{SPACE}]+|{SPACE}+")
_MAX_RUNS = 1 << 18
_AT_ONCE = 1 << 16  # symbols
_LONG_TEXT = 1024  # characters: shorter ones are cut before spaces only
_NEVER = float("-inf")
_BEFORE_SPACE = re.compile(f"(.)(?={SPACE})", re.DOTALL)


class SentencePiece:
    """Encodes ordinary text, without special tokens, by the scores of the tokens."""

    def __init__(self, vocabulary: Vocabulary, *, space_prefix: bool) -> None:
        self._space_prefix = space_prefix
        self._ids = dict(vocabulary.ids)
        self._scores = dict(zip(vocabulary.texts, vocabulary.scores, strict=True))
        for id in vocabulary.of_kind(CONTROL, UNKNOWN):
            del self._ids[vocabulary.texts[id]]
            del self._scores[vocabulary.texts[id]]
        self._bytes = [self._find_byte(value, vocabulary.unknown) for value in range(256)]
        self._words = cut_pattern(_BEFORE_SPACE.findall("\n".join(self._ids)))
        self._chunked = ChunkedBpe(self._encode_part, lambda: BETWEEN.join(self._ids))
        self._runs: dict[str, tuple[str, ...]] = {}
        self._apart: dict[tuple[str, str], bool] = {}
        self._word_cache = WordCache(self._chunked.encode)

    def encode(self, text: str, *, first: bool) -> Iterator[Sequence[int]]:
        """Ids of `text`. `first`: nothing or a special token stands before it, and a space may be put there."""
        text = (SPACE if first and self._space_prefix else "") + text.replace(" ", SPACE)
        boundaries = self._chunked.find_boundaries(len(text)) if len(text) > _LONG_TEXT else None
        return self._word_cache.encode(self._words.findall(text) if boundaries is None else boundaries.cut_text(text))

    def prepare(self) -> None:
        """All is made."""

    def count_kept(self, text: str) -> int:
        """See `TokenEncoder`."""
        return len(text) if None not in self._bytes else 0

    def _encode_part(self, part: str) -> Iterator[Sequence[int]]:
        symbols = self._merge(part) if len(part) <= WINDOW else merge_in_windows(part, self._merge)
        for start in range(0, len(symbols), _AT_ONCE):
            yield [*chain.from_iterable([self._spell(symbol) for symbol in symbols[start : start + _AT_ONCE]])]

    def _merge(self, part: str) -> Sequence[str]:
        """The symbols of a part: those of its runs of letters and of signs, if they stay apart where runs meet.

        Symbols that stay apart in each pair of neighbours do so in the whole: a merge across a place depends on
        nothing beyond the two symbols that it would reach into. What is remembered of both is never taken out of the
        dicts that are held here, so other threads may share them, and put new ones in their place.
        """
        runs = _RUNS.findall(part)
        if len(runs) == 1:
            return self._merge_run(part)
        if len(self._runs) + len(self._apart) > _MAX_RUNS:
            self._runs, self._apart = {}, {}
        known, apart = self._runs, self._apart
        symbols: list[str] = []
        for run in runs:
            found = known.get(run)
            if found is None:
                found = known[run] = tuple(self._merge_run(run))
            if symbols:
                pair = symbols[-1], found[0]
                if pair not in apart:
                    apart[pair] = self._merge_run("".join(pair)) == [*pair]
                if not apart[pair]:
                    return self._merge_run(part)
            symbols += found
        return symbols

    def _merge_run(self, run: str) -> list[str]:
        return self._merge_short(run) if len(run) <= _SHORT else self._merge_long(run)

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
