"""Tells on stderr what takes long: one line that changes on a terminal, a few lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """Use it with `with`; call it with a line whenever something slow begins."""

    def __init__(self, first: str) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = time.perf_counter()
        self._first, self._steps = first, 0

    def __enter__(self) -> Progress:
        if self._terminal:
            self._show(self._first)
        return self

    def __call__(self, line: str) -> None:
        """A slow step begins."""
        self._steps += 1
        if self._terminal:
            self._show(line)
        elif self._steps == 1:
            print("opsin: compiling kernels for this machine; the next start finds them", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if self._steps and kind is None:
            seconds = time.perf_counter() - self._start
            print(f"opsin: compiled {self._steps} kernels, ready after {seconds:.1f} s", file=sys.stderr, flush=True)

    def _show(self, line: str) -> None:
        print(f"\r\x1b[K{line[:100]}", end="", file=sys.stderr, flush=True)
