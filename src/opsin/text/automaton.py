"""Patterns as tables: what a regular expression matches, found by one look-up a character.

It takes the part of the language that pre-tokenizers are written in: classes, groups, alternatives, greedy repetition,
and a look at the one character that follows. A pattern with more (a look behind, possessive repetition) is refused,
and whoever asked goes on with the pattern itself. As in `regex`, the first alternative that matches wins, and
repetition takes as much as it can: states are sequences of places in the pattern, those that are tried first standing
first, and a match ends all that stand behind it (R. Cox, "Regular expression matching: the virtual machine approach").
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import regex

MAX_STATES: Final = 4096
END: Final = 0  # the class of what follows the last character
_MAX_REPEAT: Final = 1000
_COUNT: Final = sys.maxunicode + 1
_TOKEN: Final = regex.compile(
    r"""(?P<set>\[(?:\\.|\[[^\]]*\]|[^\[\]\\])+\]|\\[pP]\{[^}]+\}|\\[sSdDwW])
    |(?P<end>\\Z)
    |(?P<look>\(\?(?P<sign>[=!]))
    |(?P<open>\(\?:)|(?P<close>\))|(?P<or>\|)
    |(?P<many>[?*+]|\{(?P<low>\d+)(?P<range>,(?P<high>\d+)?)?\})(?P<kind>[+?])?
    |(?P<char>\\[rntvf]|\\[^\p{L}\p{N}]|[^\\()\[\]{}|?*+^$.])
    |(?P<rest>.)""",
    regex.VERBOSE | regex.DOTALL,
)


class Unsupported(Exception):  # noqa: N818 - an answer to whoever asks for a table
    """The pattern needs more than tables can do."""


@dataclass(frozen=True)
class Automaton:
    """`table[state, class]` is twice the place of the next state's row, plus 1 where a match ends before the character.

    `classes` has the class of each code point. The first state is that of no match, the second the beginning.
    """

    table: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """A place of the pattern. What it does depends on which of the fields are there; one with none is a match."""

    takes: int | None = None  # the number of a set: takes one of its characters
    looks: int | None = None  # goes on where the next character is in the set (or not), and takes nothing
    wanted: bool = True
    to: tuple[int, ...] = ()  # where it goes on, the best first


def compile_pattern(pattern: str) -> Automaton:
    """The table of a pattern. Raises Unsupported."""
    return _Builder(_Reader(pattern)).build()


class _Reader:
    """A pattern as steps, made from its end to its beginning; `sets` are the classes that it names."""

    def __init__(self, pattern: str) -> None:
        self.steps = [Step()]
        self.sets: list[str] = []
        self._tokens = [*_TOKEN.finditer(pattern)]
        self._at = 0
        tree = self._read_alternatives()
        if self._at < len(self._tokens):
            raise Unsupported(pattern)
        self.first = self._emit(tree, 0)

    def _read_alternatives(self) -> tuple[object, ...]:
        """("or", branch, branch ...), each branch ("all", item, item ...)."""
        branches = [self._read_branch()]
        while self._kind() == "or":
            self._at += 1
            branches.append(self._read_branch())
        return ("or", *branches)

    def _kind(self) -> str | None:
        if self._at >= len(self._tokens):
            return None
        found = self._tokens[self._at]
        kinds = ("set", "end", "look", "open", "close", "or", "many", "char", "rest")
        return next(kind for kind in kinds if found[kind] is not None)

    def _read_branch(self) -> tuple[object, ...]:
        items: list[object] = []
        while (kind := self._kind()) not in (None, "or", "close"):
            token = self._tokens[self._at]
            self._at += 1
            if kind == "set" or kind == "char":
                items.append(("take", self._number(token.group())))
            elif kind == "end":
                items.append(("look", self._number(r"[\s\S]"), False))
            elif kind == "open":
                items.append(self._read_alternatives())
                self._close()
            elif kind == "look":
                items.append(("look", self._read_set(), token["sign"] == "="))
                self._close()
            elif kind == "many" and items and token["kind"] is None:
                items.append(("many", items.pop(), *_bounds(token)))
            else:
                raise Unsupported(token.group())
        return ("all", *items)

    def _read_set(self) -> int:
        if self._kind() not in ("set", "char"):
            raise Unsupported("a look at more than a character")
        self._at += 1
        return self._number(self._tokens[self._at - 1].group())

    def _close(self) -> None:
        if self._kind() != "close":
            raise Unsupported("a group of another kind")
        self._at += 1

    def _number(self, text: str) -> int:
        if text not in self.sets:
            self.sets.append(text)
        return self.sets.index(text)

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        if len(self.steps) > 8 * MAX_STATES:
            raise Unsupported("too many steps")
        return len(self.steps) - 1

    def _emit(self, tree: object, after: int) -> int:
        """Steps for a tree that go on at `after`; where they begin."""
        assert isinstance(tree, tuple)
        kind, *rest = tree
        if kind == "take":
            return self._add(Step(takes=rest[0], to=(after,)))
        if kind == "look":
            return self._add(Step(looks=rest[0], wanted=rest[1], to=(after,)))
        if kind == "all":
            for item in reversed(rest):
                after = self._emit(item, after)
            return after
        if kind == "or":
            begins = tuple(self._emit(branch, after) for branch in rest)
            return begins[0] if len(begins) == 1 else self._add(Step(looks=None, to=begins))
        item, low, high = rest
        return self._emit_many(item, low, high, after)

    def _emit_many(self, item: object, low: int, high: int | None, after: int) -> int:
        if high is None:
            again = self._add(Step())
            self.steps[again] = Step(to=(self._emit(item, again), after))
            after = again
        else:
            end = after
            for _ in range(high - low):
                after = self._add(Step(to=(self._emit(item, after), end)))
        for _ in range(low):
            after = self._emit(item, after)
        return after


def _bounds(token: regex.Match[str]) -> tuple[int, int | None]:
    """How often at least and at most."""
    if token["low"] is None:
        return {"?": (0, 1), "*": (0, None), "+": (1, None)}[token["many"]]
    low = int(token["low"])
    high = low if token["range"] is None else int(token["high"]) if token["high"] else None
    if max(low, high or 0) > _MAX_REPEAT:
        raise Unsupported(token.group())
    return low, high


class _Builder:
    """Steps to states: a state is the places that wait for the next character."""

    def __init__(self, reader: _Reader) -> None:
        self._steps = reader.steps
        self._first = reader.first
        self._classes, self._members = split_characters(reader.sets)

    def build(self) -> Automaton:
        count = len(self._members)
        states: dict[tuple[int, ...], int] = {(): 0, (self._first,): 1}
        rows: list[list[int]] = [[0] * count]
        waiting: list[tuple[int, ...]] = [(self._first,)]
        while waiting:
            places = waiting.pop(0)
            row = []
            for number in range(count):
                after, matched = self._go(places, number)
                if after not in states:
                    states[after] = len(states)
                    waiting.append(after)
                row.append(2 * count * states[after] + matched)
            rows.append(row)
            if len(states) > MAX_STATES:
                raise Unsupported("too many states")
        if any(entry & 1 for entry in rows[1]):
            raise Unsupported("matches nothing at all")
        return Automaton(np.array(rows, np.int32), self._classes)

    def _go(self, places: Sequence[int], number: int) -> tuple[tuple[int, ...], bool]:
        """The places after a character of this class, and whether a match ends before it."""
        members = self._members[number]
        after: dict[int, None] = {}
        seen: set[int] = set()
        stack = [*reversed(places)]
        while stack:
            place = stack.pop()
            if place in seen:
                continue
            seen.add(place)
            step = self._steps[place]
            if not step.to:
                return tuple(after), True
            if step.takes is not None:
                if step.takes in members:
                    after[step.to[0]] = None
            elif step.looks is None or (step.looks in members) == step.wanted:
                stack += reversed(step.to)
        return tuple(after), False


def split_characters(sets: Sequence[str]) -> tuple[npt.NDArray[np.uint8], list[frozenset[int]]]:
    """The class of each code point, and which of the sets hold the characters of each class. Class 0 is the end."""
    spans = [find_spans(text) for text in sets]
    edges = np.unique(np.concatenate([[0, _COUNT], *(edge for pair in spans for edge in pair)]).astype(np.int64))
    inside = np.zeros((len(sets), len(edges) - 1), np.bool_)
    for row, (starts, ends) in zip(inside, spans, strict=True):
        change = np.zeros(len(edges), np.int64)
        np.add.at(change, np.searchsorted(edges, starts), 1)
        np.add.at(change, np.searchsorted(edges, ends), -1)
        row[:] = np.cumsum(change)[:-1] > 0
    kinds, number = np.unique(inside, axis=1, return_inverse=True)
    if kinds.shape[1] > 254:
        raise Unsupported("too many classes of characters")
    classes = np.repeat((number.reshape(-1) + 1).astype(np.uint8), np.diff(edges))
    return classes, [frozenset(), *(frozenset(np.flatnonzero(column).tolist()) for column in kinds.T)]


@cache
def find_spans(text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs of code points begin and end that are in a set."""
    spans = [match.span() for match in regex.finditer(f"{text}+", _every_character(), regex.V1)]
    found = np.array(spans, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


@cache
def _every_character() -> str:
    return "".join(map(chr, range(_COUNT)))
