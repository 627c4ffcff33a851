"""What the command reads and writes.

A terminal gets no control characters: names, templates and answers come from strangers. A stdout that takes no more
ends the command; a stderr that takes no more ends nothing.
"""

from __future__ import annotations

import io
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

_JOINERS = "\u200c\u200d"  # invisible, and part of how Persian and emoji are written
_SPACES = "\u00a0\u3000\u202f\u2009"
_FLAWED = re.compile(r"[^ -~\n\t]")  # what is worth a look; the rest is plain ASCII
_USUAL_COLUMNS = 80


class OutputLost(Exception):  # noqa: N818 - it ends the command as Ctrl-C does, and is nobody's error to handle
    """What should be printed cannot be written: a full disk, a closed stdout."""


def visible(text: str) -> str:
    """The text with what is no character to see written out: controls, and what changes the direction of others.

    Line breaks and tabs stay. ESC becomes the four characters \\x1b.
    """
    if text.isascii() and text.isprintable():
        return text
    return _FLAWED.sub(_spelt, text.replace("\r\n", "\n"))


def _spelt(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() or character in _JOINERS or character in _SPACES:
        return character
    return character.encode("unicode_escape").decode()


class Shown(io.TextIOBase):
    """A text stream in front of another one.

    Args:
        stream: where it goes.
        escapes: whether control characters are written out.
        must: whether what cannot be written raises OutputLost (or BrokenPipeError); else it is dropped.
    """

    def __init__(self, stream: TextIO, *, escapes: bool, must: bool) -> None:
        self.stream, self._escapes, self._must = stream, escapes, must

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    @property
    def buffer(self) -> io.BufferedIOBase:
        return self.stream.buffer  # type: ignore[return-value]

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(visible(text) if self._escapes else text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def draw(self, line: str) -> None:
        """Put a line in the place of the terminal's last one, cut to its width."""
        text = "\r\x1b[K" + cut(visible(line).replace("\n", " "), self.columns - 1)
        self._try(lambda: (self.stream.write(text), self.stream.flush()))

    @property
    def columns(self) -> int:
        """Of the terminal as it is now."""
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self.fileno()).columns or _USUAL_COLUMNS
        return _USUAL_COLUMNS

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BrokenPipeError:
            if self._must:
                raise
        except OSError as error:
            if self._must:
                raise OutputLost(f"the output cannot be written: {error.strerror}") from error


def cut(text: str, columns: int) -> str:
    """As much of a text as fits; characters of East Asia take two columns, accents that join another none."""
    used = 0
    for place, character in enumerate(text):
        used += 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        if used > columns:
            return text[:place]
    return text


def open_streams() -> None:
    """Make stdin, stdout and stderr sound, for the life of the process.

    Where the shell closed one, the next file that is opened would get its number, and what is printed would go there.
    """
    for number, way in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # writing to a closed stdout must fail
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest number that is free
    # `input` asks for stdin and stdout of these numbers.
    sys.stdin = sys.stdin or _text(0, "r")
    stdout, stderr = sys.stdout or _text(1, "w"), sys.stderr or _text(2, "w")
    for stream in (sys.stdin, stdout, stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout = Shown(stdout, escapes=stdout.isatty(), must=True)
    sys.stderr = Shown(stderr, escapes=True, must=False)


def _text(number: int, mode: str) -> TextIO:
    return cast("TextIO", open(number, mode, encoding="utf-8", errors="replace", closefd=False))


def draw(line: str) -> None:
    """A line of stderr that changes, where stderr is a terminal."""
    if isinstance(sys.stderr, Shown) and sys.stderr.isatty():
        sys.stderr.draw(line)
