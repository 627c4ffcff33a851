"""Text that comes in pieces, for a parser that is written as if it were there: it waits where it needs more.

A method of the kind `Steps` is a generator: each `yield` waits for more text, and once the text has ended none does.
All are linear in the text: what is looked at again is never longer than a marker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

from opsin.text.calls.shapes import ID, NUMBER

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

END = "\x00"
MAX_NAME = 256  # characters of a name or an id
_OPEN = {ID: re.compile(r"[\w.:/+-]"), NUMBER: re.compile(r"\d")}
_ATOM = re.compile(r"[\x01\x02]|<[^<>\s\x01\x02]+>|\[[^\[\]\s]+\]|[<\[]?[^\s<\[\x01\x02]+|[<\[]")


def atoms(literal: str) -> tuple[str, ...]:
    """The parts of a marker between which a model may write whitespace, or leave it out."""
    return tuple(_ATOM.findall(literal))


class Incoming:
    """What came and was not taken yet. With a text: all of it at once."""

    def __init__(self, text: str | None = None) -> None:
        self._text = text or ""
        self._place = 0
        self._ended = text is not None
        self._record: list[str] | None = None

    def add(self, text: str) -> None:
        """More text."""
        self._text = self._text[self._place :] + text
        self._place = 0

    def end(self) -> None:
        """No more text will come."""
        self._ended = True

    def record(self) -> None:
        """From here on what is taken is kept, for `recorded`."""
        self._record = []

    def recorded(self) -> str:
        """What was taken since `record`; ends the record."""
        text, self._record = "".join(self._record or ()), None
        return text

    def take(self, count: int) -> str:
        """The next characters, which must be there."""
        text = self._text[self._place : self._place + count]
        self._place += len(text)
        if self._record is not None:
            self._record.append(text)
        return text

    def has(self, count: int) -> Steps[bool]:
        """Whether so many characters come at all."""
        while len(self._text) - self._place < count:
            if self._ended:
                return False
            yield
        return True

    def peek(self) -> Steps[str]:
        """The next character, which stays; "" at the end."""
        found = yield from self.has(1)
        return self._text[self._place] if found else ""

    def space(self) -> Steps[str]:
        """Takes whitespace."""
        taken: list[str] = []
        while (letter := (yield from self.peek())) and letter.isspace():
            taken.append(self.take(1))
        return "".join(taken)

    def run(self, pattern: re.Pattern[str], most: int) -> Steps[str]:
        """Takes characters of which each matches, at most so many."""
        taken: list[str] = []
        while len(taken) < most and (letter := (yield from self.peek())) and pattern.match(letter):
            taken.append(self.take(1))
        return "".join(taken)

    def starts(self, marker: str) -> Steps[bool]:
        """Whether this comes next; takes nothing, and waits only while it still may."""
        count = 1
        while count <= len(marker):
            there = yield from self.has(count)
            have = self._text[self._place : self._place + len(marker)]
            if not there or not marker.startswith(have):
                return False
            count = len(have) + 1
        return True

    def literal(self, parts: Sequence[str], *, take: bool = True) -> Steps[list[str] | None]:
        """Takes these atoms with any whitespace before each; None, and nothing taken, where they do not come.

        Returns what stands where an atom is ID; END is where no more text comes.
        """
        offset = 0
        found: list[str] = []
        for part in parts:
            while (yield from self._letter(offset)).isspace():
                offset += 1
            if part in _OPEN:
                start = offset
                while _OPEN[part].match((yield from self._letter(offset))) and offset - start < MAX_NAME:
                    offset += 1
                if part == ID:
                    found.append(self._text[self._place + start : self._place + offset])
                continue
            if part == END and (yield from self._letter(offset)):
                return None
            if part == END:
                continue
            for letter in part:
                if (yield from self._letter(offset)) != letter:
                    return None
                offset += 1
        if take:
            self.take(offset)
        return found

    def close(self, marker: str) -> Steps[None]:
        """Takes a marker, with any whitespace; of one within which the text ends, what came of it."""
        if (yield from self.literal(atoms(marker))) is None and self._ended:
            left = self._text[self._place :]
            if "".join(marker.split()).startswith("".join(left.split())):
                self.take(len(left))

    def _letter(self, offset: int) -> Steps[str]:
        found = yield from self.has(offset + 1)
        return self._text[self._place + offset] if found else ""

    def until(self, markers: Collection[str], give: Callable[[str], None]) -> Steps[str]:
        """Gives what comes before the first of these markers, as it comes; returns it, untaken, or "" at the end.

        Of markers at one place the longest counts.
        """
        pattern = _alternatives(tuple(markers))
        while True:
            found = pattern.search(self._text, self._place) if markers else None
            if found is None:
                held = _held(self._text, self._place, markers) if not self._ended else 0
                give(self.take(len(self._text) - self._place - held))
                if self._ended:
                    return ""
                yield
                continue
            left = len(self._text) - found.start()
            longer = any(left < len(one) and one.startswith(self._text[found.start() :]) for one in markers)
            give(self.take(found.start() - self._place))
            if not longer or self._ended:
                return found[0]
            yield


def completed(steps: Steps[Result]) -> Result:
    """What steps come to that need not wait."""
    try:
        next(steps)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError("the text has not ended")


@lru_cache(maxsize=256)
def _alternatives(markers: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))


def _held(text: str, start: int, markers: Collection[str]) -> int:
    """Characters at the end that may begin a marker."""
    most = min(len(text) - start, max(map(len, markers), default=1) - 1)
    return next((n for n in range(most, 0, -1) if any(m.startswith(text[len(text) - n :]) for m in markers)), 0)
