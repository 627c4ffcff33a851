"""Keeps a user's text from becoming control tokens, through any chat template.

A template joins its own markers with texts that came from people, and afterwards nobody can tell them apart. So before
rendering `protect` breaks, in every user's text, whatever could begin a control token: a mark goes behind the first
character of it. `Tokenizer.encode(special=True)` looks for special tokens first and takes the marks out of the ordinary
text that remains. The mark is a Unicode noncharacter; a text that holds one itself has it escaped, so that every text
comes back as it was.

A control token is recognised by its first three characters, also where the text ends within them: what a template
joins to it, or cuts out of its middle, cannot complete one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from opsin.errors import ModelError

MARK: Final = "\ufdd0"
ESCAPE: Final = "\ufdd1"  # six digits follow, one of the sixteen noncharacters below for each
DIGIT_ZERO: Final = 0xFDE0
_LEAD: Final = 3
_MARKS: Final = re.compile(f"{MARK}|{ESCAPE}([\ufde0-\ufdef]{{6}})")


class Guard:
    """Breaks and mends texts for one vocabulary. `texts` are those of the tokens that no user may write."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._leads = leads = frozenset(text[:_LEAD] for text in texts if text)
        self.single = frozenset(lead for lead in leads if len(lead) == 1)
        self._escaped = re.compile(f"[{re.escape(''.join(sorted(self.single)))}{MARK}{ESCAPE}]")
        rests: dict[str, set[str]] = {}
        for lead in leads - self.single:
            rests.setdefault(lead[0], set()).add(lead[1:])
        self._broken = re.compile("|".join(_pattern(first, rest) for first, rest in sorted(rests.items())) or "(?!)")

    def also(self, texts: Iterable[str]) -> Guard:
        """A guard of these texts too."""
        return Guard([*self._leads, *texts])

    def protect(self, text: str) -> str:
        escaped = self._escaped.sub(_escape, text)
        return self._broken.sub(_mark, escaped)


def unprotect(text: str) -> str:
    """Takes marks out and undoes escapes."""
    return _MARKS.sub(_unescape, text) if MARK in text or ESCAPE in text else text


def _pattern(first: str, rests: Iterable[str]) -> str:
    """Matches `first` where one of `rests` follows, whole or cut off by the end of the text."""
    ends = {rest[:length] for rest in rests for length in range(len(rest))}
    follows = [re.escape(rest) for rest in sorted(rests)] + [re.escape(end) + r"\Z" for end in sorted(ends)]
    return f"{re.escape(first)}(?={'|'.join(follows)})"


def _mark(match: re.Match[str]) -> str:
    return match.group() + MARK


def _escape(match: re.Match[str]) -> str:
    return ESCAPE + "".join(chr(DIGIT_ZERO + int(digit, 16)) for digit in f"{ord(match.group()):06x}")


def _unescape(match: re.Match[str]) -> str:
    digits = match.group(1)
    if digits is None:
        return ""
    code = sum((ord(digit) - DIGIT_ZERO) << (4 * (5 - place)) for place, digit in enumerate(digits))
    return chr(code) if code <= sys.maxunicode else ""  # only a forged escape is out of range


class Guarded(Protocol):
    """Whatever has a guard: a tokenizer."""

    @property
    def guard(self) -> Guard: ...


def protect(text: str, tokenizer: Guarded) -> str:
    """`text` so that no template and no neighbour makes a control token of it."""
    return tokenizer.guard.protect(text)


def protect_values(value: object, tokenizer: Guarded) -> object:
    """Protects every string within messages, tools or other JSON-like values; the value given stays as it is."""
    if isinstance(value, str):
        return tokenizer.guard.protect(value)
    if isinstance(value, Mapping):
        return {protect_values(key, tokenizer): protect_values(item, tokenizer) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [protect_values(item, tokenizer) for item in value]
    return value


def split_at_marker(text: str, marker: str, tokenizer: Guarded) -> list[str]:
    """The runs of a rendered text between the places where the template itself wrote `marker`.

    n markers give n + 1 runs, some perhaps empty. The same characters in a user's text are protected, so they are no
    marker and stay in their run. Runs are still protected: encode each with `special=True`. A marker that users could
    write unbroken is refused; `Tokenizer.guarding` makes a tokenizer that guards it.
    """
    if not marker or marker in tokenizer.guard.protect(marker):
        raise ModelError(f"the marker {marker!r} is not guarded in users' texts",
                         hint="protect texts with tokenizer.guarding(marker) before rendering")  # fmt: skip
    return text.split(marker)
