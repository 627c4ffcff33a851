"""Long texts by compiled code: cut by tables, words looked up in a memory of fixed size, what is new encoded at once.

The ids are those of the slower way, which shorter texts take: making the tables takes as long as encoding half a
megabyte without them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from secrets import randbits
from threading import Lock
from typing import Final

import numpy as np

from opsin.text.automaton import Automaton, Unsupported, compile_pattern
from opsin.text.plans import Bytes, Ints, Kernels, Longs, Plan, join

Fragments = Sequence[str | int]

PATIENCE: Final = 1 << 19  # characters that come before it is worth making the tables
SHORT: Final = 512  # characters: shorter texts go the other way
_CHUNK: Final = 1 << 16  # bytes between two looks at whether somebody else wants to run
_IDS: Final = 1 << 17
_LINES: Final = 15  # the memory of words has 2 ** 15 lines
_LINE: Final = 128  # bytes of each
_MOST: Final = (1 << 31) - 64
_SPARE: Final = 64  # bytes behind a text that kernels write
_LONGEST_PART: Final = 32  # bytes that a character may become; each could begin a word, which takes one more
_BLOCK: Final = 64  # characters that are asked about together


def _unchanged(fragments: Fragments) -> Fragments:
    return fragments


class LongTexts:
    """Encodes long texts, once enough has come. `plan` says how; None: this vocabulary cannot be encoded so.

    `encode_piece` gives the ids of a piece that is too long or too odd for the kernels. `write` makes of fragments
    what is encoded; None: they must be encoded in another way.
    """

    def __init__(
        self, kernels: Kernels | None, plan: Callable[[], Plan | None], encode_piece: Callable[[str], Sequence[int]],
        write: Callable[[Fragments], Fragments | None] = _unchanged,
    ) -> None:  # fmt: skip
        self._kernels = kernels
        self._plan = plan
        self._encode_piece = encode_piece
        self._write = write
        self._patience = PATIENCE
        self._lock = Lock()
        self._pieces: Pieces | None = None

    def encode(self, fragments: Fragments) -> list[int] | None:
        """Ids of texts, and the ids that stand between them; None where they must be encoded in another way."""
        size = sum(len(fragment) for fragment in fragments if isinstance(fragment, str))
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
            written = self._write(fragments)
            if written is None:
                return None
            try:
                raw, bounds = join([fragment for fragment in written if isinstance(fragment, str)])
            except UnicodeEncodeError:  # bytes that were no UTF-8
                return None
            found = self._pieces.encode(raw, bounds[1:], self._encode_piece)
        return None if found is None else _insert(fragments, *found)


def _insert(fragments: Fragments, ids: Ints, ends: Longs) -> list[int]:
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


class Pieces:
    """The tables of one vocabulary, and the way through them. One text at a time."""

    def __init__(self, kernels: Kernels, plan: Plan, automata: Sequence[Automaton]) -> None:
        factor = randbits(62) * 2 + 1  # no file can know which texts meet in a slot
        self._run = kernels.run
        self._automata = automata
        self._joints = plan.joints
        self._kept = plan.kept
        self._fused = plan.fused
        self._words = None if plan.rewrite is None else Words(kernels, plan.rewrite)
        self._told = plan.tell(kernels, factor)
        self._memory = np.zeros((_LINE // 8) << _LINES, np.int64), 64 - _LINES, factor
        self._ids = np.empty(_IDS, np.int32)
        self._result = np.zeros(4, np.int64)

    def encode(
        self, text: Bytes, bounds: Longs, encode_piece: Callable[[str], Sequence[int]]
    ) -> tuple[Ints, Longs] | None:
        """Ids of texts that end at `bounds`, and how many there are up to each of these.

        None where a pattern would look too far ahead too often, or a character cannot be rewritten alone.
        """
        if int(bounds[-1]) > _MOST:
            return None
        words = None
        if self._words is not None:
            rewritten = self._words.rewrite(text, bounds)
            if rewritten is None:
                return None
            text, bounds, words = rewritten
        found = [np.empty(0, np.int32)]
        marks = [(np.zeros(1, np.int32), np.zeros(1, np.int64))]
        size = int(bounds[-1])
        begin = total = 0
        while begin < size:
            ends = self._cut(text, begin, bounds) if words is None else _take(words, begin)
            if ends is None:
                return None
            while len(ends):
                written_to = np.empty(len(ends), np.int32)
                self._run(self._told.name, self._told.options, text, ends, len(ends), begin, self._ids, _IDS,
                          self._result, written_to, *self._memory, *self._told.values)  # fmt: skip
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
        ids, counts = np.concatenate(found), counts[np.searchsorted(places, bounds)]
        return (ids, counts) if self._fused < 0 else _fuse(ids, counts, self._fused)

    def _cut(self, text: Bytes, begin: int, bounds: Longs) -> Ints | None:
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

    def _cut_plain(self, text: Bytes, begin: int, bounds: Longs) -> Ints:
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

    def _cut_joints(self, text: Bytes, ends: Ints, begin: int) -> Ints:
        if self._joints is None:
            return ends
        cuts = np.empty(int(ends[-1]) - begin + 16, np.int32)
        self._run("cut_text", {"by": "joints"}, text, ends, len(ends), begin, cuts, len(cuts), self._result,
                  *self._joints.tables, self._kept)  # fmt: skip
        return cuts[: int(self._result[0])]


class Words:
    """Rewrites texts into words by what `rewrite` tells of each character: see `Plan`.

    It is asked about a character, and those beside it, when one comes for the first time.
    """

    def __init__(self, kernels: Kernels, rewrite: Callable[[str], str | None]) -> None:
        self._run = kernels.run
        self._rewrite = rewrite
        self._numbers = np.full(sys.maxunicode + 1, -1, np.int32)
        self._parts: dict[str, int] = {}
        self._joined = join([])

    def rewrite(self, text: Bytes, bounds: Longs) -> tuple[Bytes, Longs, Ints] | None:
        """The words of texts that end at `bounds`, one behind the other; where those of each text end; and each.

        None where there is a character that depends on others, and where they become too long.
        """
        size = int(bounds[-1])
        if size > _MOST // 2 - _SPARE:
            return None
        to = np.empty(2 * size + _SPARE, np.uint8)
        ends = np.empty(len(to) // 2, np.int32)  # no word has less than two bytes
        new = np.empty(len(bounds), np.int64)
        state = np.zeros(5, np.int64)
        while True:
            place, written, words, done = state[:4].tolist()
            if done == len(bounds):
                return to, new, ends[:words]
            if written + _SPARE > len(to):
                if len(to) > _MOST // 2:
                    return None
                to, ends = (np.concatenate([array, np.empty_like(array)]) for array in (to, ends))
            if place < size and self._numbers[code := _code_at(text, place)] < 0:
                self._learn(code // _BLOCK * _BLOCK)
                if self._numbers[code] < 0:
                    return None
            self._run("rewrite_text", {}, text, bounds, len(bounds), self._numbers, *self._joined, to, len(to), ends,
                      new, state, place + _CHUNK)  # fmt: skip

    def _learn(self, first: int) -> None:
        count = len(self._parts)
        for code in range(first, first + _BLOCK):
            letter = chr(code)
            part = self._rewrite(letter)
            if part is None or len(part.encode()) > _LONGEST_PART:
                continue
            known = 0 if part == letter != " " else 1 if part == f" {letter} " else None
            self._numbers[code] = self._parts.setdefault(part, len(self._parts) + 2) if known is None else known
        if len(self._parts) > count:
            self._joined = join(list(self._parts))


def _code_at(text: Bytes, place: int) -> int:
    """The code point of the character that begins there."""
    return ord(text[place : place + 4].tobytes().decode("utf-8", "ignore")[0])


def _take(words: Ints, begin: int) -> Ints:
    """The ends of the next words."""
    first = int(np.searchsorted(words, begin, side="right"))
    return words[first : first + _CHUNK]


def _fuse(ids: Ints, ends: Longs, id: int) -> tuple[Ints, Longs]:
    """One of each run of this id within a text."""
    kept = np.ones(len(ids), np.bool_)
    kept[1:] = (ids[1:] != id) | (ids[:-1] != id)
    kept[ends[ends < len(ids)]] = True
    counts = np.concatenate([[0], np.cumsum(kept)])
    return ids[kept], counts[ends]
