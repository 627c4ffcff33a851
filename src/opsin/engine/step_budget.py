"""How much a step may do, so that streams go on.

Thread: the engine's.
"""

from __future__ import annotations


class StepBudget:
    """How many rows a step may compute, so that it stays within its time while somebody streams."""

    def __init__(self, most: int, *, seconds: float = 0.1, least: int = 32) -> None:
        self._most, self._least, self._seconds = most, least, seconds
        self._seconds_a_row: float | None = None

    def rows(self, streaming: bool, ready: int = 0) -> int:
        """The budget of the next step: room for `ready` rows of those who stream, and some for prompts.

        Alone, a prompt may take all that a step holds.
        """
        if not streaming or self._seconds_a_row is None:
            return self._most
        return min(self._most, max(self._least + ready, int(self._seconds / self._seconds_a_row)))

    def saw(self, rows: int, seconds: float) -> None:
        """Learn from a step that computed many rows."""
        if rows >= self._least:
            now = seconds / rows
            self._seconds_a_row = now if self._seconds_a_row is None else 0.7 * self._seconds_a_row + 0.3 * now
