"""Ends a text at a stop string, although it comes in pieces.

Text that may be the beginning of a stop string is held back until the next piece tells. What was emitted is never
taken back, and of a stop string nothing is emitted. All stop strings are looked for at once, in a step a character
(A. V. Aho and M. J. Corasick, "Efficient string matching: an aid to bibliographic search", 1975).
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one text. `matched` is the stop string that ended it, None so far."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in dict.fromkeys(stops) if stop]
        self._state = _State(0, self._stops, None)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string has been met. Afterwards nothing more comes."""
        if self.matched is not None:
            return "", True
        if not self._stops:
            return text, False
        begin, text = len(self._held), self._held + text
        found = (len(text), 0)  # where it begins, and minus its length
        state = self._state
        for place in range(begin, len(text)):
            state = state.follow(text[place])
            if state.met:
                found = min(found, (place + 1 - state.met, -state.met))
        if found[1]:
            self.matched = text[found[0] : found[0] - found[1]]
            self._held = ""
            return text[: found[0]], True
        self._state = state
        shown = len(text) - state.size
        self._held = text[shown:]
        return text[:shown], False

    def finish(self) -> str:
        """What was held back, once the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held


class _State:
    """The longest end of a text that begins a stop string: `size` characters, with which all of `stops` begin.

    States are made when a text reaches them, so that long stop strings cost nothing before.

    Attributes:
        met: the length of the longest stop string that the text ends with; 0 for none.
    """

    __slots__ = ("_longer", "_shorter", "_stops", "met", "size")

    def __init__(self, size: int, stops: Sequence[str], shorter: _State | None) -> None:
        self.size = size
        self.met: int = size if size in map(len, stops) else shorter.met if shorter else 0
        self._stops = stops
        self._shorter = shorter  # the next longest end that begins a stop string
        self._longer: dict[str, _State | None] = {}  # what one more character makes of it

    def follow(self, character: str) -> _State:
        """The state after one more character."""
        state, new = self, []
        while (found := state._longer.get(character)) is None:
            if character not in state._longer:
                new.append(state)
            if state._shorter is None:
                found = state
                break
            state = state._shorter
        for state in reversed(new):
            found = state._lengthen(character, found) or found
        return found

    def _lengthen(self, character: str, shorter: _State) -> _State | None:
        stops = self._stops
        if len(stops) != 1 or not stops[0].startswith(character, self.size):
            stops = [stop for stop in stops if stop.startswith(character, self.size)]
        made = self._longer[character] = _State(self.size + 1, stops, shorter) if stops else None
        return made
