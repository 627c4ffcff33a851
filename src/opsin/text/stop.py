"""Ends a text at a stop string, although it comes in pieces.

Text that may be the beginning of a stop string is held back until the next piece tells. What was emitted is never
taken back, and of a stop string nothing is emitted.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one text. `matched` is the stop string that ended it, None so far."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in dict.fromkeys(stops) if stop)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string has been met. Afterwards nothing more comes."""
        if self.matched is not None:
            return "", True
        text = self._held + text
        found = [(place, -len(stop), stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            place, _, self.matched = min(found)
            self._held = ""
            return text[:place], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def finish(self) -> str:
        """What was held back, once the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
