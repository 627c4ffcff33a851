"""Fields of a JSON body, read one by one: each refusal names its field.

null means absent, as OpenAI's clients mean it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from opsin.serve.failures import FieldError, HttpError

_DEPTH = 64


def parse(body: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises HttpError 400 for anything else, however deep."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise HttpError(400, f"the body is no JSON: {str(error):.200}") from None
    if not isinstance(value, dict):
        raise HttpError(400, "the body is no JSON object", hint='send {"messages": [...]}')
    if _deeper(value, _DEPTH):
        raise HttpError(400, f"the body is nested more than {_DEPTH} deep")
    return value


def _deeper(value: object, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth == 0 or any(_deeper(part, depth - 1) for part in parts)


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
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FieldError(name, f"{value!r:.80} is no number")
        if clamp:
            return min(max(value, low), high)
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
