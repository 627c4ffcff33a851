"""Tells on stderr what takes long: one line that changes on a terminal, a few lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from opsin.cli.streams import draw


class FirstLines:
    """What takes long, as it goes on: a terminal's line changes, a log gets the first line of each thing.

    Lines are `what: how far`.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, line: str) -> None:
        """It goes on."""
        what = line.rpartition(": ")[0] or line
        if sys.stderr.isatty():
            draw(line)
        elif what not in self._told:
            print(f"opsin: {line}", file=sys.stderr, flush=True)
        self._told.add(what)


class Progress:
    """Use it with `with`; call it with a line whenever something slow begins."""

    def __init__(self, first: str) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = time.perf_counter()
        self._first, self._steps, self._others = first, 0, FirstLines()

    def __enter__(self) -> Progress:
        draw(self._first)
        return self

    def __call__(self, line: str) -> None:
        """A slow step begins."""
        if not line.startswith("compiling"):
            self._others(line)
            return
        self._steps += 1
        if self._terminal:
            draw(line)
        elif self._steps == 1:
            print("opsin: compiling kernels for this machine; the next start finds them", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        draw("")
        if self._steps and kind is None:
            seconds = time.perf_counter() - self._start
            print(f"opsin: compiled {self._steps} kernels, ready after {seconds:.1f} s", file=sys.stderr, flush=True)
