"""Keeps what people wrote from becoming control tokens, through any chat template.

A template's text knows which of its characters people wrote (see `origin`). Before it is encoded, `SpecialTokenEscaper`
breaks whatever in these could be, begin or end a control token: BREAK goes behind its first character.
`Tokenizer.encode(special=True)` looks for special tokens first and takes the breaks out of the ordinary text that
remains. BREAK is a Unicode noncharacter; a text that holds one itself has it escaped, so that every text comes back
as it was.

A control token is recognised by its first three characters, also where the text ends within them, so what is joined to
it later cannot complete one; and where the template wrote its beginning, by the whole of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from opsin.errors import ModelError
from opsin.text.origin import Written, plain, spans_of

BREAK = "\ufdd0"
ESCAPE = "\ufdd1"  # six digits follow, one of the sixteen noncharacters below for each
DIGIT_ZERO = 0xFDE0
_LEAD = 3
_STEP, _REACH = 1 << 17, 8  # characters that are looked through while others wait; and what a match may span
_BREAKS_AND_ESCAPES = re.compile(f"{BREAK}|{ESCAPE}([\ufde0-\ufdef]{{6}})")


class SpecialTokenEscaper:
    """Escapes texts for one vocabulary. `texts` are those of the tokens that no user may write."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts) - {""}
        self._longest = max(map(len, self._texts), default=0)
        self._by_lead: dict[str, list[str]] = {}
        for text in sorted(self._texts):
            self._by_lead.setdefault(text[:_LEAD], []).append(text)
        leads = frozenset(self._by_lead)
        self.single = frozenset(lead for lead in leads if len(lead) == 1)
        self._escaped = re.compile(f"[{re.escape(''.join(sorted(self.single)))}{BREAK}{ESCAPE}]")
        rests: dict[str, set[str]] = {}
        for lead in leads - self.single:
            rests.setdefault(lead[0], set()).add(lead[1:])
        self._broken = re.compile("|".join(_pattern(first, rest) for first, rest in sorted(rests.items())) or "(?!)")

    def also(self, texts: Iterable[str]) -> SpecialTokenEscaper:
        """One of these texts too."""
        return SpecialTokenEscaper([*self._texts, *texts])

    def escape(self, text: str) -> str:
        """A text in which nothing that people wrote is part of one of these."""
        whole, parts, place = plain(text), [], 0
        for start, end in spans_of(text):
            crossed = BREAK if self._is_crossed(whole, start) else ""
            parts += [whole[place:start], crossed, self._escape_part(whole[start:end])]
            place = end
        return "".join([*parts, whole[place:]])

    def _escape_part(self, text: str) -> str:
        return _replaced(self._broken, _break_behind, _replaced(self._escaped, _spell_out, text))

    def _is_crossed(self, text: str, place: int) -> bool:
        """Whether one of these texts begins before this place and ends behind it."""
        for start in range(max(0, place - self._longest + 1), place):
            for size in range(1, _LEAD + 1):
                found = self._by_lead.get(text[start : start + size], ())
                if any(start + len(one) > place and text.startswith(one, start) for one in found):
                    return True
        return False


def unescape(text: str) -> str:
    """Takes breaks out and undoes escapes."""
    return _replaced(_BREAKS_AND_ESCAPES, _read_back, text) if BREAK in text or ESCAPE in text else text


def _replaced(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """`pattern.sub(replace, text)`, in steps between which other threads have their turn."""
    pieces: list[str] = []
    place = 0
    for start in range(0, len(text), _STEP):
        end = start + _STEP
        for match in pattern.finditer(text, max(start, place), min(end + _REACH, len(text))):
            if match.start() >= end:
                break
            pieces += [text[place : match.start()], replace(match)]
            place = match.end()
    return "".join([*pieces, text[place:]])


def _pattern(first: str, rests: Iterable[str]) -> str:
    """Matches `first` where one of `rests` follows, whole or cut off by the end of the text."""
    ends = {rest[:length] for rest in rests for length in range(len(rest))}
    follows = [re.escape(rest) for rest in sorted(rests)] + [re.escape(end) + r"\Z" for end in sorted(ends)]
    return f"{re.escape(first)}(?={'|'.join(follows)})"


def _break_behind(match: re.Match[str]) -> str:
    return match.group() + BREAK


def _spell_out(match: re.Match[str]) -> str:
    return ESCAPE + "".join(chr(DIGIT_ZERO + int(digit, 16)) for digit in f"{ord(match.group()):06x}")


def _read_back(match: re.Match[str]) -> str:
    digits = match.group(1)
    if digits is None:
        return ""
    code = sum((ord(digit) - DIGIT_ZERO) << (4 * (5 - place)) for place, digit in enumerate(digits))
    return chr(code) if code <= sys.maxunicode else ""  # only a forged escape is out of range


class HasEscaper(Protocol):
    """A tokenizer."""

    @property
    def escaper(self) -> SpecialTokenEscaper: ...


def escape_special_tokens(text: str, tokenizer: HasEscaper) -> str:
    """`text` so that nothing that people wrote in it is part of a control token."""
    return tokenizer.escaper.escape(text)


def split_at_markers(text: str, markers: Collection[str], tokenizer: HasEscaper) -> tuple[list[str], list[str]]:
    """The runs of an escaped text between places of any of these markers, and which stand there: see the one below."""
    for marker in markers:
        split_at_marker("", marker, tokenizer)
    longest_first = sorted(markers, key=len, reverse=True)
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return pieces[::2], pieces[1::2]


def split_at_marker(text: str, marker: str, tokenizer: HasEscaper) -> list[str]:
    """The runs of an escaped text between the places where the template itself wrote `marker`.

    n markers give n + 1 runs, some perhaps empty. The same characters in a user's text are broken, so they are no
    marker and stay in their run. Runs are still escaped: encode each with `special=True`. A marker that users could
    write unbroken is refused; `Tokenizer.escaping` makes a tokenizer that escapes it.
    """
    if not marker or marker in tokenizer.escaper.escape(Written(marker)):
        raise ModelError(f"the marker {marker!r} is not escaped in users' texts",
                         hint="escape texts with tokenizer.escaping(marker)")  # fmt: skip
    return text.split(marker)
