"""Fields of a JSON body, read one by one: each refusal names its field.

null means absent, as OpenAI's clients mean it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opsin.serve.errors import FieldError, HttpError

_DEPTH = 64
_MARKS = 1 << 20  # a value in memory takes up to 64 bytes for each; what pictures are sent in has none


def parse(body: bytes | bytearray) -> Mapping[str, Any]:
    """A JSON object. Raises HttpError 400 for anything else, however deep, and for what no text can hold."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MARKS:
        raise HttpError(400, f"the body has more than {_MARKS} values", hint="send less text")
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise HttpError(400, f"the body is no JSON: {ascii(str(error))[1:-1]:.200}") from None
    if not isinstance(value, dict):
        raise HttpError(400, "the body is no JSON object", hint='send {"messages": [...]}')
    _check(value, _DEPTH)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise HttpError(400, f"the body is nested more than {_DEPTH} deep")
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
    elif isinstance(value, dict):
        for name, part in value.items():
            _check(name, depth)
            _check(part, depth - 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth - 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HttpError(
            400, f"a text holds {text[error.start]!a}, half of a character", hint="do not cut texts within a character"
        ) from None


class Fields:
    """A body's fields."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def get(self, *names: str) -> tuple[str, Any]:
        """The first of these names that is there, and its value; the first name and None where none is."""
        for name in names:
            if self._body.get(name) is not None:
                return name, self._body[name]
        return names[0], None

    def flag(self, name: str) -> bool:
        value = self._body.get(name)
        if value is not None and not isinstance(value, bool):
            raise FieldError(name, f"{value!r:.80} is not true or false")
        return bool(value)

    def number(self, name: str, low: float, high: float, *, clamp: bool = False) -> float | None:
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise FieldError(name, f"{value!r:.80} is no number")
        if clamp:
            return float(min(max(value, low), high))
        if not low <= value <= high:
            raise FieldError(name, f"{value!r:.80} is out of range", hint=f"give {low:g} to {high:g}")
        return float(value)

    def whole(self, *names: str, low: int, high: int) -> int | None:
        name, value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise FieldError(name, f"{value!r:.80} is no whole number")
        if not low <= value <= high:
            raise FieldError(name, f"{value!r:.80} is out of range", hint=f"give {low} to {high}")
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self._body.get(name)
        if value is not None and not isinstance(value, str):
            raise FieldError(name, f"{value!r:.80} is no text")
        return value if value is not None else default

    def texts(self, name: str) -> tuple[str, ...]:
        """A text or a list of texts."""
        value = self._body.get(name)
        if value is None:
            return ()
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise FieldError(name, f"{value!r:.80} is no text and no list of texts")
        return tuple(text for text in listed if text)

    def object(self, name: str) -> Mapping[str, Any]:
        value = self._body.get(name)
        if value is not None and not isinstance(value, dict):
            raise FieldError(name, f"{value!r:.80} is no object")
        return value or {}
