"""Long texts by compiled code: cut by tables, words looked up in a memory of fixed size, what is new merged at once.

The ids are those of the slower way, which shorter texts take: making the tables takes as long as encoding half a
megabyte without them. It knows what kernels need to be told (`Kernels`), not how they are compiled or found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import randbits
from threading import Lock
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from opsin.text.automaton import Automaton, Unsupported, compile_pattern
from opsin.text.joints import Joints

Ints = npt.NDArray[np.int32]
Value = int | npt.NDArray[np.generic]

PATIENCE: Final = 1 << 19  # characters that come before it is worth making the tables
SHORT: Final = 512  # characters: shorter texts go the other way
_CHUNK: Final = 1 << 16  # bytes between two looks at whether somebody else wants to run
_IDS: Final = 1 << 17
_LINES: Final = 15  # the memory of words has 2 ** 15 lines
_LINE: Final = 128  # bytes of each
_WORK: Final = 1 << 15
_MOST: Final = (1 << 31) - 64


class Kernels(Protocol):
    """Compiled kernels by their names (`ops/cpu/kernels`)."""

    def run(self, name: str, options: dict[str, str], *values: Value) -> None:
        """Run one; `values` are its arguments in order."""
        ...


@dataclass(frozen=True)
class Plan:
    """How a vocabulary encodes.

    `texts` are its texts with their `symbols`: ids below `size`, others for texts that are no tokens. `units` has the
    symbol of each byte or code point; those from `unknown` on are code points that are no tokens, and become the
    `byte_ids` of their bytes. Pairs merge by `merges`, or, where there are none, by the `ranks` of what they spell.
    """

    texts: Sequence[str]
    symbols: Ints
    size: int
    unit: Literal["bytes", "characters"]
    units: Ints
    unknown: int
    byte_ids: Ints
    patterns: tuple[str, ...] = ()
    joints: Joints | None = None
    merges: Sequence[str] | None = None
    ranks: Ints | None = None
    whole: Literal["no", "any", "newline"] = "no"
    letters: bytes = b""  # two bytes for each byte: its letter in UTF-8


class LongTexts:
    """Encodes long texts, once enough has come. `plan` says how; None: this vocabulary cannot be encoded so.

    `encode_piece` gives the ids of a piece that is too long or too odd for the kernels.
    """

    def __init__(
        self, kernels: Kernels | None, plan: Callable[[], Plan | None], encode_piece: Callable[[str], Sequence[int]]
    ) -> None:
        self._kernels = kernels
        self._plan = plan
        self._encode_piece = encode_piece
        self._patience = PATIENCE
        self._lock = Lock()
        self._pieces: Pieces | None = None

    def encode(self, fragments: Sequence[str | int]) -> list[int] | None:
        """Ids of texts, and the ids that stand between them; None where they must be encoded in another way."""
        texts = [fragment for fragment in fragments if isinstance(fragment, str)]
        size = sum(map(len, texts))
        if self._kernels is None or size < SHORT:
            return None
        with self._lock:
            self._patience -= size
            if self._patience > 0:
                return None
            if self._pieces is None and (plan := self._plan()) is not None:
                self._pieces = _make(self._kernels, plan)
            if self._pieces is None:
                self._kernels = None  # nor will it ever be
                return None
            try:
                raw, bounds = join(texts)
            except UnicodeEncodeError:  # bytes that were no UTF-8
                return None
            found = self._pieces.encode(raw, bounds[1:], self._encode_piece)
        return None if found is None else _insert(fragments, *found)


def _insert(fragments: Sequence[str | int], ids: Ints, ends: npt.NDArray[np.int64]) -> list[int]:
    """The ids of texts with those that stand between them. `ends`: how many ids there are up to each text's end."""
    special = np.array([not isinstance(fragment, str) for fragment in fragments])
    between = [fragment for fragment in fragments if not isinstance(fragment, str)]
    before = np.cumsum(~special)[special]  # texts before each special token
    places = np.concatenate([[0], ends])[before]
    listed: list[int] = (np.insert(ids, places, between) if between else ids).tolist()
    return listed


def _make(kernels: Kernels, plan: Plan) -> Pieces | None:
    try:
        return Pieces(kernels, plan, [compile_pattern(pattern) for pattern in plan.patterns])
    except Unsupported:
        return None


class Texts:
    """A table of texts for kernels, and its arguments."""

    def __init__(self, kernels: Kernels, texts: Sequence[str], factor: int) -> None:
        self.blob, self.bounds = join(texts)
        bits = max(4, (len(texts) * 3 // 2).bit_length())
        self.shift = 64 - bits
        self.table = np.zeros(2 << bits, np.int64)
        kernels.run(
            "index_texts", {"part": "texts"}, self.blob, self.bounds, len(texts), self.table, self.shift, factor
        )


def join(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of texts, some to spare behind them, and where each begins and the last ends."""
    encoded = [text.encode() for text in texts]
    bounds = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=bounds[1:])
    return np.frombuffer(b"".join(encoded) + bytes(16), np.uint8), bounds


class Pieces:
    """The tables of one vocabulary, and the way through them. One text at a time."""

    def __init__(self, kernels: Kernels, plan: Plan, automata: Sequence[Automaton]) -> None:
        self._run = kernels.run
        self._automata = automata
        self._joints = plan.joints
        self._kept = 10 if plan.whole == "newline" else -1
        self._factor = factor = randbits(62) * 2 + 1  # no file can know which texts meet in a slot
        texts = Texts(kernels, plan.texts, factor)
        pairs, pairs_shift = self._index_pairs(plan, texts)
        self._memory = np.zeros((_LINE // 8) << _LINES, np.int64)
        self._ids = np.empty(_IDS, np.int32)
        self._result = np.zeros(4, np.int64)
        self._options = {"unit": plan.unit, "by": "ranks" if plan.merges is None else "pairs", "whole": plan.whole}
        none = np.zeros(1, np.int32)
        self._tables: tuple[Value, ...] = (
            self._memory, 64 - _LINES, factor, plan.units, plan.size, plan.unknown, plan.byte_ids, texts.blob,
            texts.bounds, texts.table, texts.shift, plan.symbols, none if plan.ranks is None else plan.ranks, pairs,
            pairs_shift, np.frombuffer(plan.letters or bytes(512), np.uint8), np.zeros(_WORK // 8, np.int64),
        )  # fmt: skip

    def _index_pairs(self, plan: Plan, texts: Texts) -> tuple[npt.NDArray[np.int64], int]:
        if plan.merges is None:
            return np.zeros(3, np.int64), 64
        merges, bounds = join(plan.merges)
        bits = max(4, (len(plan.merges) * 3 // 2).bit_length())
        pairs = np.zeros(3 << bits, np.int64)
        room = np.zeros(int(np.diff(bounds).max(initial=0)) // 8 + 4, np.int64)
        self._run(
            "index_texts", {"part": "pairs"}, merges, bounds, len(plan.merges), texts.blob, texts.bounds, texts.table,
            texts.shift, self._factor, plan.symbols, pairs, 64 - bits, self._factor, room,
        )  # fmt: skip
        return pairs, 64 - bits

    def encode(
        self, text: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], encode_piece: Callable[[str], Sequence[int]]
    ) -> tuple[Ints, npt.NDArray[np.int64]] | None:
        """Ids of texts that end at `bounds`, and how many there are up to each of these.

        None where a pattern would look too far ahead too often.
        """
        size = int(bounds[-1])
        if size > _MOST:
            return None
        found: list[Ints] = []
        marks: list[tuple[Ints, npt.NDArray[np.int64]]] = []
        begin = total = 0
        while begin < size:
            ends = self._cut(text, begin, bounds)
            if ends is None:
                return None
            while len(ends):
                written_to = np.empty(len(ends), np.int32)
                self._run("merge_texts", self._options, text, ends, len(ends), begin, self._ids, _IDS, self._result,
                          *self._tables, written_to)  # fmt: skip
                done, written, foreign = self._result[:3].tolist()
                found.append(self._ids[:written].copy())
                marks.append((ends[:done], written_to[:done].astype(np.int64) + total))
                total += written
                begin = int(ends[done - 1]) if done else begin
                if foreign:
                    end = int(ends[done])
                    found.append(np.array(encode_piece(text[begin:end].tobytes().decode()), np.int32))
                    total += len(found[-1])
                    marks.append((ends[done : done + 1], np.array([total])))
                    begin, done = end, done + 1
                ends = ends[done:]
        places, counts = (np.concatenate(column) for column in zip(*marks, strict=True))
        return np.concatenate(found), counts[np.searchsorted(places, bounds)]

    def _cut(self, text: npt.NDArray[np.uint8], begin: int, bounds: npt.NDArray[np.int64]) -> Ints | None:
        """Where the pieces of the next chunk end."""
        if not self._automata:
            return self._cut_plain(text, begin, bounds)
        first = int(np.searchsorted(bounds, begin, side="right"))
        ends = bounds[first : first + _CHUNK].astype(np.int32)
        room, enough = _CHUNK + 16, _CHUNK
        for automaton in self._automata:
            cuts = np.empty(room + len(ends), np.int32)
            self._run("cut_text", {"by": "pattern"}, text, ends, len(ends), begin, cuts, room, self._result,
                      automaton.table, automaton.classes, automaton.table.shape[1], enough)  # fmt: skip
            if self._result[0] < 0:
                return None
            ends = cuts[: int(self._result[0])]
            room, enough = int(ends[-1]) - begin + 16, 1 << 40
        return self._cut_joints(text, ends, begin)

    def _cut_plain(self, text: npt.NDArray[np.uint8], begin: int, bounds: npt.NDArray[np.int64]) -> Ints:
        """The same where no pattern cuts: all joints of the chunk, so that the last is a good place to stop at."""
        size, end = _CHUNK, int(bounds[-1])
        while True:
            stop = min(begin + size, end)
            while stop < end and text[stop] & 0xC0 == 0x80:
                stop -= 1
            first, last = np.searchsorted(bounds, [begin, stop], side="right")
            within = bounds[first:last].astype(np.int32)
            ends = within if len(within) and within[-1] == stop else np.append(within, np.int32(stop))
            cuts = self._cut_joints(text, ends, begin)
            if len(ends) == len(within):
                return cuts
            if len(cuts) > 1:
                return cuts[:-1]
            size *= 2

    def _cut_joints(self, text: npt.NDArray[np.uint8], ends: Ints, begin: int) -> Ints:
        if self._joints is None:
            return ends
        cuts = np.empty(int(ends[-1]) - begin + 16, np.int32)
        self._run("cut_text", {"by": "joints"}, text, ends, len(ends), begin, cuts, len(cuts), self._result,
                  *self._joints.tables, self._kept)  # fmt: skip
        return cuts[: int(self._result[0])]
