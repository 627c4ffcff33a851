"""What kernels are told of a vocabulary: how a text is cut into pieces, and how a piece becomes ids.

It knows the kernels' arguments (`ops/cpu/kernels`), not how they are compiled or found, nor what is done with the ids.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from opsin.text.automaton import Unsupported
from opsin.text.joints import Joints

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Value = int | npt.NDArray[np.generic]

_WORK: Final = 1 << 15
_MOST_REACH: Final = 255


class Kernels(Protocol):
    """Compiled kernels by their names (`ops/cpu/kernels`)."""

    def run(self, name: str, options: dict[str, str], *values: Value) -> None:
        """Run one; `values` are its arguments in order."""
        ...


@dataclass(frozen=True)
class Told:
    """A kernel that makes ids of pieces, and those of its arguments that stay the same."""

    name: str
    options: dict[str, str]
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """How a vocabulary encodes: texts are cut into words by `patterns`, and further at `joints`; or they are rewritten.

    `rewrite` tells what becomes of a character, whatever its neighbours are: a text in which a space ends a word; None
    where it depends on them. Words so made get a zero byte in front, which is in none of them.

    `kept`: pieces that begin with this byte are not cut at joints. `fused`: of this id one is left of several.
    """

    texts: Sequence[str]
    patterns: tuple[str, ...] = ()
    joints: Joints | None = None
    rewrite: Callable[[str], str | None] | None = None
    kept: int = -1
    fused: int = -1

    @abstractmethod
    def tell(self, kernels: Kernels, factor: int) -> Told:
        """The kernel for pieces. `factor` is that of digests. Raises Unsupported."""


@dataclass(frozen=True, kw_only=True)
class Merging(Plan):
    """Pairs of neighbours merge, by `merges`, or, where there are none, by the `ranks` of what they spell.

    `texts` have their `symbols`: ids below `size`, others for texts that are no tokens. `units` has the symbol of each
    byte or code point; those from `unknown` on are code points that are no tokens, and become the `byte_ids` of their
    bytes.
    """

    symbols: Ints
    size: int
    unit: Literal["bytes", "characters"]
    units: Ints
    unknown: int
    byte_ids: Ints
    merges: Sequence[str] | None = None
    ranks: Ints | None = None
    whole: Literal["no", "any", "newline"] = "no"
    letters: bytes = b""  # two bytes for each byte: its letter in UTF-8

    def tell(self, kernels: Kernels, factor: int) -> Told:
        texts = Texts(kernels, self.texts, factor)
        pairs, pairs_shift = self._index_pairs(kernels, texts, factor)
        none = np.zeros(1, np.int32)
        options = {"unit": self.unit, "by": "ranks" if self.merges is None else "pairs", "whole": self.whole}
        values = (
            self.units, self.size, self.unknown, self.byte_ids, *texts.tables, self.symbols,
            none if self.ranks is None else self.ranks, pairs, pairs_shift,
            np.frombuffer(self.letters or bytes(512), np.uint8), np.zeros(_WORK // 8, np.int64),
        )  # fmt: skip
        return Told("merge_texts", options, values)

    def _index_pairs(self, kernels: Kernels, texts: Texts, factor: int) -> tuple[Longs, int]:
        if self.merges is None:
            return np.zeros(3, np.int64), 64
        merges, bounds = join(self.merges)
        bits = max(4, (len(self.merges) * 3 // 2).bit_length())
        pairs = np.zeros(3 << bits, np.int64)
        room = np.zeros(int(np.diff(bounds).max(initial=0)) // 8 + 4, np.int64)
        kernels.run("index_texts", {"part": "pairs"}, merges, bounds, len(self.merges), *texts.tables, factor,
                    self.symbols, pairs, 64 - bits, factor, room)  # fmt: skip
        return pairs, 64 - bits


@dataclass(frozen=True, kw_only=True)
class Searching(Plan):
    """The longest text fits first; or, where there are `scores`, the likeliest sequence is found.

    `texts` have their `ids`; a piece in which none fits, or of more than `most` characters, or a character that is
    none, becomes `unknown` (negative: nothing).
    """

    ids: Ints
    unknown: int
    most: int = 0
    scores: Longs | None = None
    unknown_score: int = 0

    def tell(self, kernels: Kernels, factor: int) -> Told:
        texts = Texts(kernels, self.texts, factor)
        none = np.zeros(1, np.int64)
        by, scores = ("longest", none) if self.scores is None else ("likeliest", self.scores)
        values = (
            *texts.tables, self.ids, self._find_reach(texts.bounds), self.unknown, self.most, scores,
            self.unknown_score, np.zeros(_WORK // 8, np.int64),
        )  # fmt: skip
        return Told("search_texts", {"by": by}, values)

    def _find_reach(self, bounds: Longs) -> Bytes:
        """The bytes of the longest text that begins with each code point."""
        sizes = np.diff(bounds)
        if sizes.max(initial=0) > _MOST_REACH:
            raise Unsupported("texts of more than 255 bytes")
        reach = np.zeros(sys.maxunicode + 1, np.uint8)
        firsts = np.fromiter((ord(text[0]) for text in self.texts), np.int64, len(sizes))
        np.maximum.at(reach, firsts, sizes.astype(np.uint8))
        return reach


class Texts:
    """A table of texts for kernels. `tables` are what kernels ask for: texts, their bounds, the table, its shift."""

    def __init__(self, kernels: Kernels, texts: Sequence[str], factor: int) -> None:
        blob, self.bounds = join(texts)
        bits = max(4, (len(texts) * 3 // 2).bit_length())
        table = np.zeros(2 << bits, np.int64)
        self.tables: tuple[Value, ...] = (blob, self.bounds, table, 64 - bits)
        kernels.run("index_texts", {"part": "texts"}, blob, self.bounds, len(texts), table, 64 - bits, factor)


def join(texts: Sequence[str]) -> tuple[Bytes, Longs]:
    """The bytes of texts, some to spare behind them, and where each begins and the last ends."""
    encoded = [text.encode() for text in texts]
    bounds = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=bounds[1:])
    return np.frombuffer(b"".join(encoded) + bytes(16), np.uint8), bounds
