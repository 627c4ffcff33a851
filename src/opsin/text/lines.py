"""Ends a text at a line: at one that is less indented than it shall be, or at the first one after some time.

Both are llama-server's (`n_indent`, `t_max_predict_ms`), for editors that ask for the rest of a block.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LineLimits:
    """Of one text.

    Attributes:
        indent: spaces or tabs that each line but the first must begin with; 0 for none.
        seconds: time after which a text ends once it has more than one line; None for no end.
    """

    indent: int = 0
    seconds: float | None = None


class Lines:
    """Watches one text for its limits. Afterwards nothing more comes."""

    def __init__(self, limits: LineLimits) -> None:
        self._limits = limits
        self._lines = 0  # line breaks up to now
        self._blank: int | None = None  # blanks at the beginning of this line, until something else comes

    def push(self, text: str, seconds: float) -> tuple[str, bool]:
        """The text that may be shown, and whether it ends here. `seconds` have passed since it began."""
        if self._limits.indent and (cut := self._short_line(text)) is not None:
            return text[:cut], True
        most = self._limits.seconds
        if most is None:
            return text, False
        self._lines += text.count("\n")
        return text, self._lines > 0 and seconds > most

    def _short_line(self, text: str) -> int | None:
        """Where a line that is indented too little says something."""
        for place, character in enumerate(text):
            if character == "\n":
                self._blank = 0
            elif self._blank is not None and character in " \t":
                self._blank += 1
            elif self._blank is not None:
                if self._blank < self._limits.indent:
                    return place
                self._blank = None
        return None
