"""Values of arguments, in whatever notation a model writes them, as JSON while they come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from opsin.text.calls.incoming import Incoming, Steps, completed
from opsin.text.calls.shapes import GEMMA_QUOTE, Notation

Give = Callable[[str], None]

_QUOTES = {Notation.JSON: ('"',), Notation.PYTHON: ('"', "'"), Notation.GEMMA: (GEMMA_QUOTE, '"')}
_CLOSING = {"{": "}", "[": "]", "(": "]"}
_WORD = re.compile(r"[^\s,:{}\[\]()\"'<]")
_WORDS = {"True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_HEX = re.compile(r"[0-9a-fA-F]")
_SHORT = {"'": "'", "a": "\\u0007", "v": "\\u000b", "0": "\\u0000", "\n": ""}
_DIGITS = {"x": 2, "u": 4, "U": 8}
_MAX_WORD = 1000


def escaped(text: str) -> str:
    """A part of a text as it stands in JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def read_value(incoming: Incoming, notation: Notation, give: Give) -> Steps[bool]:
    """Reads one value and gives it as JSON; whether it was whole. Numbers and words are given once their end is seen.

    What is no JSON (an unquoted word, a line break in a text) is given as what it must mean.
    """
    closing: list[str] = []
    while True:
        space = yield from incoming.space()
        give(space if closing else "")
        letter = yield from incoming.peek()
        if letter in _CLOSING:
            closing.append(_CLOSING[letter])
            incoming.take(1)
            give("[" if letter == "(" else letter)
        elif letter and letter in "}])":
            if not closing or closing[-1] != letter.replace(")", "]"):
                return False
            incoming.take(1)
            give(closing.pop())
        elif letter and letter in ",:" and closing:
            give(incoming.take(1))
            continue
        elif quote := (yield from _quote(incoming, notation)):
            if not (yield from read_text(incoming, quote, give)):
                return False
        else:
            word = yield from incoming.run(_WORD, _MAX_WORD)
            if not word:
                return False
            is_key = closing[-1:] == ["}"] and (yield from incoming.peek()) == ":"
            give(json.dumps(word, ensure_ascii=False) if is_key else _word(word))
        if not closing:
            return True


def _quote(incoming: Incoming, notation: Notation) -> Steps[str]:
    for quote in _QUOTES[notation]:
        if (yield from incoming.starts(quote)):
            return quote
    return ""


def _word(word: str) -> str:
    """A number or a name without quotes."""
    if word in ("true", "false", "null") or _NUMBER.fullmatch(word):
        return word
    for kind in (int, float):
        try:
            return json.dumps(kind(word), allow_nan=False)
        except ValueError:
            continue
    return _WORDS.get(word) or json.dumps(word, ensure_ascii=False)


def read_text(incoming: Incoming, quote: str, give: Give) -> Steps[bool]:
    """Reads a quoted text and gives it as JSON while it comes; whether it ended."""
    incoming.take(len(quote))
    give('"')
    stops = (quote,) if quote == GEMMA_QUOTE else (quote, "\\")

    def tell(text: str) -> None:
        give(escaped(text))

    while stop := (yield from incoming.until(stops, tell)):
        incoming.take(len(stop))
        if stop == quote:
            give('"')
            return True
        give((yield from _escape(incoming)))
    return False


def _escape(incoming: Incoming) -> Steps[str]:
    """What stands behind a backslash, as JSON."""
    letter = yield from incoming.peek()
    incoming.take(1)
    if letter in _DIGITS:
        digits = yield from incoming.run(_HEX, _DIGITS[letter])
        if len(digits) < _DIGITS[letter] or int(digits, 16) > 0x10FFFF:
            return escaped(f"\\{letter}{digits}")
        return f"\\u{digits}" if letter == "u" else json.dumps(chr(int(digits, 16)))[1:-1]
    if letter and letter in '"\\/bfnrt':
        return f"\\{letter}"
    return _SHORT.get(letter, escaped(f"\\{letter}"))


def as_json(text: str) -> str:
    """A whole value that was written without quotes: JSON as it is, Python's literals as JSON, all else as a text."""
    text = text.strip()
    if _is_json(text):
        return text
    made: list[str] = []
    incoming = Incoming(text)
    is_read = completed(read_value(incoming, Notation.PYTHON, made.append)) and not completed(incoming.peek())
    found = "".join(made)
    return found if is_read and _is_json(found) else json.dumps(text, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
        return True
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> None:
    raise ValueError(constant)
