"""Grammars of values that are no JSON: Python's, and those of Gemma 4, by their JSON schemas as far as types go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from opsin.text.calls.schemas import is_required, properties_of, types_of
from opsin.text.calls.shapes import GEMMA_QUOTE, Notation

_PYTHON = r"""/'([^'\\\n]|\\[^\n])*'|"([^"\\\n]|\\[^\n])*"/"""
_NUMBERS = {
    "integer": r"/-?(0|[1-9][0-9]{0,18})/",
    "number": r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?/",
}
_WORDS = {Notation.PYTHON: ("True", "False", "None"), Notation.GEMMA: ("true", "false", "null")}
_MAX_DEPTH = 8


class NotatedValues:
    """Writes values of one notation. `rule` makes a rule of its own, `spelled` a text in Lark."""

    def __init__(
        self, notation: Notation, value: Callable[[Mapping[str, object]], str], spelled: Callable[[str], str],
        rule: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._notation, self._json = notation, value
        self._spelled, self._new_rule = spelled, rule
        self._pair = ":" if notation == Notation.GEMMA else "="

    def whole(self, schema: Mapping[str, object]) -> str:
        """All arguments as one object."""
        if self._notation == Notation.JSON:
            return self._json(schema)
        return f'"{{" {self.listed(schema)} "}}"'

    def listed(self, schema: Mapping[str, object]) -> str:
        """All arguments one after the other, in the order of the schema; some may be left out."""
        needed, left = list[str](), list[str]()
        for key, value in properties_of(schema).items():
            pair = self._new_rule(f"{self._spelled(key + self._pair)} {self._value(value, schema, 0)}")
            (needed if is_required(key, schema) else left).append(pair)
        between = '"," SPACE'
        tail = "".join(f" ({between} {pair})?" for pair in left)
        if needed:
            return f" {between} ".join(needed) + tail
        starts = [
            pair + "".join(f" ({between} {later})?" for later in left[place + 1 :]) for place, pair in enumerate(left)
        ]
        return f"({' | '.join(starts)})?" if starts else ""

    def _value(self, schema: object, root: Mapping[str, object], depth: int) -> str:
        """A value of the types that a schema names; of any type where it names none."""
        types = types_of(schema, root) or {"string", "number", "boolean", "null", "array", "object"}
        known = schema if isinstance(schema, Mapping) else {}
        if isinstance(values := known.get("enum"), list) and all(isinstance(value, str) for value in values):
            return f"({' | '.join(self._text(value) for value in values)})"
        made = [self._one(kind, known, root, depth) for kind in sorted(types)]
        return f"({' | '.join(filter(None, made))})"

    def _text(self, text: str) -> str:
        if self._notation == Notation.GEMMA:
            return self._spelled(f"{GEMMA_QUOTE}{text}{GEMMA_QUOTE}")
        return f"{json.dumps(json.dumps(text, ensure_ascii=False))} | {json.dumps(repr(text))}"

    def _one(self, kind: str, schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> str:
        true, false, null = _WORDS[self._notation]
        if kind in _NUMBERS:
            return _NUMBERS[kind]
        if kind == "boolean":
            return f'"{true}" | "{false}"'
        if kind == "null":
            return f'"{null}"'
        if kind == "string":
            return self._string()
        if kind == "array":
            item = "any_value"
            if "items" in schema and depth < _MAX_DEPTH:
                item = self._new_rule(self._value(schema["items"], root, depth + 1))
            return f'"[" ({item} ("," SPACE {item})*)? "]"'
        return "any_object"

    def common(self) -> str:
        """Rules for values of which nothing is known, which the others use."""
        true, false, null = _WORDS[self._notation]
        key = r"/[A-Za-z_][A-Za-z0-9_-]{0,60}/" if self._notation == Notation.GEMMA else self._string()
        quote = self._spelled(GEMMA_QUOTE)
        return f"""
to_quote[lazy]: TEXT {quote}
any_value: {self._string()} | {_NUMBERS["number"]} | "{true}" | "{false}" | "{null}" | any_list | any_object
any_list: "[" (any_value ("," SPACE any_value)*)? "]"
any_object: "{{" (any_pair ("," SPACE any_pair)*)? "}}"
any_pair: {key} ":" SPACE any_value
"""

    def _string(self) -> str:
        if self._notation == Notation.PYTHON:
            return _PYTHON
        quote = self._spelled(GEMMA_QUOTE)
        return f"{quote} TEXT {quote}" if quote.startswith("<[") else f"{quote} to_quote"
