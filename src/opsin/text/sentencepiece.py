"""SentencePiece's byte-pair kind (the model `llama`): the pair that makes the best-scored token is merged first.

Merging never crosses a place where no token of the vocabulary has these two characters side by side. Where a word
begins is nearly always such a place, so text is cut there and words are remembered with their ids; the result is that
of merging the whole text at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Final

import numpy as np

from opsin.text.compiled import Fragments, LongTexts
from opsin.text.joints import BETWEEN, Joints, Parts
from opsin.text.plans import Ints, Kernels, Merging
from opsin.text.vocabulary import CONTROL, UNKNOWN, Vocabulary
from opsin.text.words import SPACE, WordMemory, cut_pattern

_SHORT: Final = 48  # characters: up to here looking through all pairs is faster than a heap
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_RUNS: Final = re.compile(rf"{SPACE}*\w+|[^\w{SPACE}]+|{SPACE}+")
_MAX_RUNS: Final = 1 << 18
_LONG_TEXT: Final = 1024  # characters: shorter ones are cut before spaces only
_NEVER: Final = float("-inf")
_BEFORE_SPACE: Final = re.compile(f"(.)(?={SPACE})", re.DOTALL)


class SentencePiece:
    """Encodes ordinary text, without special tokens, by the scores of the tokens."""

    def __init__(self, vocabulary: Vocabulary, *, space_prefix: bool, kernels: Kernels | None = None) -> None:
        self._space_prefix = space_prefix
        self._ids = dict(vocabulary.ids)
        self._scores = dict(zip(vocabulary.texts, vocabulary.scores, strict=True))
        for id in vocabulary.of_kind(CONTROL, UNKNOWN):
            del self._ids[vocabulary.texts[id]]
            del self._scores[vocabulary.texts[id]]
        self._bytes = [self._find_byte(value, vocabulary.unknown) for value in range(256)]
        self._words = cut_pattern(_BEFORE_SPACE.findall("\n".join(self._ids)))
        self._size = len(vocabulary)
        self._parts = Parts(self._encode_part, lambda: BETWEEN.join(self._ids))
        self._runs: dict[str, tuple[str, ...]] = {}
        self._apart: dict[tuple[str, str], bool] = {}
        self._remembered = WordMemory(self._parts.encode)
        self._long = LongTexts(kernels, self._plan, self._parts.encode, self._write_each)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """Ids of `text`. `first`: nothing or a special token stands before it, and a space may be put there."""
        text = self._write(text, first=first)
        joints = self._parts.find_joints(len(text)) if len(text) > _LONG_TEXT else None
        return self._remembered.encode(self._words.findall(text) if joints is None else [*joints.cut_text(text)])

    def encode_long(self, fragments: Fragments) -> list[int] | None:
        """Ids of long texts and of what stands between them; None where they must be encoded one by one."""
        return self._long.encode(fragments)

    def _write_each(self, fragments: Fragments) -> Fragments:
        befores = [0, *fragments]
        return [
            self._write(part, first=isinstance(before, int)) if isinstance(part, str) else part
            for before, part in zip(befores, fragments, strict=False)
        ]

    def _write(self, text: str, *, first: bool) -> str:
        return (SPACE if first and self._space_prefix else "") + text.replace(" ", SPACE)

    def _encode_part(self, part: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable([self._spell(symbol) for symbol in self._merge(part)]))

    def _merge(self, part: str) -> Sequence[str]:
        """The symbols of a part: those of its runs of letters and of signs, if they stay apart where runs meet.

        Symbols that stay apart in each pair of neighbours do so in the whole: a merge across a place depends on
        nothing beyond the two symbols that it would reach into.
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

    @cached_property
    def _letters(self) -> Ints:
        """The symbol of each code point."""
        letters = np.arange(self._size, self._size + sys.maxunicode + 1, dtype=np.int32)
        for text, id in self._ids.items():
            if len(text) == 1:
                letters[ord(text)] = id
        return letters

    def _plan(self) -> Merging | None:
        """How kernels encode long texts; None where scores have no order."""
        texts = [text for text in self._ids if not _SURROGATES.search(text)]
        scores = np.array([self._scores[text] for text in texts])
        if not np.isfinite(scores).all():
            return None
        _, ranks = np.unique(-scores, return_inverse=True)
        return Merging(
            texts=texts,
            symbols=np.array([self._ids[text] for text in texts], np.int32),
            size=self._size,
            unit="characters",
            units=self._letters,
            unknown=self._size,
            byte_ids=np.array([-1 if id is None else id for id in self._bytes], np.int32),
            joints=Joints(BETWEEN.join(self._ids)),
            ranks=ranks.astype(np.int32),
        )

    def _find_byte(self, value: int, unknown: int | None) -> int | None:
        return self._ids.get(f"<0x{value:02X}>", self._ids.get(chr(value) if value < 128 else "", unknown))


def _to_bytes(text: str) -> bytes:
    """Bytes that were no UTF-8 stand in a str as lone surrogates; one that never was a byte becomes U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"\xef\xbf\xbd"
