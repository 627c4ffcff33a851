"""The form of calls as a grammar, in llguidance's kind of Lark: names as they are, arguments by their schemas.

Strings of Lark match no special token, so what is one in a vocabulary is written by its id. How a JSON schema is
written in Lark is somebody else's affair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from opsin.errors import RequestError
from opsin.text.calls.notated_values import NotatedValues
from opsin.text.calls.schemas import functions_of, is_required, properties_of, types_of, with_definitions
from opsin.text.calls.shapes import (
    ID,
    KEY,
    NUMBER,
    CallShape,
    JsonCall,
    ListedCall,
    NamedCall,
    Notation,
    TaggedCall,
)

MAX_TOOLS = 512
_OPEN = {ID: "/[A-Za-z0-9_-]{1,64}/", NUMBER: "/[0-9]{1,4}/"}
_PARTS = re.compile(f"[{ID}{NUMBER}]|[^{ID}{NUMBER}]+")
_RULES = r"""
SPACE: /( {1,8}|\n{1,2}[ \t]{0,8})?/
TEXT: /(.|\n)*/
"""


@dataclass(frozen=True)
class CallSpelling:
    """What a grammar needs of a vocabulary, and of who writes schemas.

    Attributes:
        split: a text's ordinary runs, and the ids of special tokens between them.
        value: a JSON schema in Lark.
        ends: ids that end an answer: they stand in no grammar.
    """

    split: Callable[[str], Sequence[str | int]]
    value: Callable[[Mapping[str, object]], str]
    ends: Collection[int] = ()


class CallGrammar:
    """Writes the grammar of calls of some tools in one shape."""

    def __init__(self, shape: CallShape, tools: Sequence[Mapping[str, object]], spelling: CallSpelling) -> None:
        self._shape, self._spelling = shape, spelling
        self._functions = functions_of(tools)
        if not 0 < len(self._functions) <= MAX_TOOLS:
            raise RequestError(f"{len(self._functions)} tools to call", hint=f"give 1 to {MAX_TOOLS}")
        self._rules: list[str] = []

    def text(self, opening: str, *, several: bool) -> str:
        """The whole grammar. `opening` is what the first call begins with; `several`: whether more may follow."""
        frame = self._shape.frame
        bodies = [self._rule(self._body(name, schema)) for name, schema in self._functions.items()]
        body = self._rule(f"({' | '.join(bodies)}) {self.spelled(frame.call_close)}")
        between = self.spelled(frame.between.rstrip() if frame.between.strip() else frame.between)
        space = "SPACE" if frame.between.strip() else ""
        more = f"({between} {space} {self.spelled(frame.call_open)} {body})*" if several else ""
        start = f"start: SPACE {self.spelled(opening)} {body} {more} {self.spelled(frame.section_close)}"
        return "\n".join([start, *self._rules, _RULES, self._common()])

    def _common(self) -> str:
        body = self._shape.body
        notation = body.notation if isinstance(body, NamedCall) else Notation.PYTHON
        is_notated = isinstance(body, ListedCall) or notation == Notation.GEMMA
        return self._notated(notation).common() if is_notated else ""

    def spelled(self, text: str) -> str:
        """A text in Lark."""
        found = []
        for part in _PARTS.findall(text):
            if part in _OPEN:
                found.append(_OPEN[part])
                continue
            for piece in self._spelling.split(part):
                if isinstance(piece, str):
                    found.append(json.dumps(piece, ensure_ascii=False))
                elif piece not in self._spelling.ends:
                    found.append(f"<[{piece}]>")
        return " ".join(found)

    def _rule(self, body: str, attribute: str = "") -> str:
        """A rule of its own: its name."""
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}{attribute}: {body}")
        return name

    def _body(self, name: str, schema: Mapping[str, object]) -> str:
        body = self._shape.body
        if isinstance(body, JsonCall):
            return self._json(body, name, schema)
        if isinstance(body, NamedCall):
            number = '":" /[0-9]{1,4}/' if body.numbered else ""
            head = self.spelled(("functions." if body.numbered else "") + name)
            return f"{head} {number} {self.spelled(body.name_close)} {self._notated(body.notation).whole(schema)}"
        head = self.spelled(name + body.name_close)
        if isinstance(body, ListedCall):
            return f"{head} {self._notated(Notation.PYTHON).listed(schema)}"
        return f"{head} {self._tagged(body, schema)}"

    def _notated(self, notation: Notation) -> NotatedValues:
        return NotatedValues(notation, self._arguments, self.spelled, self._rule)

    def _arguments(self, schema: Mapping[str, object]) -> str:
        """Arguments in one piece of JSON; none but those that the schema names, if it does not say otherwise."""
        closed = {"additionalProperties": False} if isinstance(schema.get("properties"), Mapping) else {}
        return self._spelling.value({"type": "object", **closed, **schema})

    def _json(self, body: JsonCall, name: str, schema: Mapping[str, object]) -> str:
        if body.name_key is None:
            return _object([(json.dumps(name), self._arguments(schema))])
        constants = dict(body.constants)
        pairs = []
        for key in body.keys:
            if key == body.name_key:
                value = _quoted(json.dumps(name))
            elif key == body.arguments_key:
                value = self._arguments(schema)
            else:
                value = _quoted(constants[key]) if key in constants else r'/"[A-Za-z0-9_-]{1,64}"/'
            pairs.append((json.dumps(key), value))
        made = _object(pairs)
        if body.holder is None:
            return made
        return _object([('"type"', r'"\"function\""'), (json.dumps(body.holder), made)])

    def _tagged(self, body: TaggedCall, schema: Mapping[str, object]) -> str:
        parts = [
            self._rule(self._argument(body, key, value, schema)) + ("" if is_required(key, schema) else "?")
            for key, value in properties_of(schema).items()
        ]
        return " ".join(parts)

    def _argument(self, body: TaggedCall, key: str, value: object, schema: Mapping[str, object]) -> str:
        types, kinds = types_of(value, schema), body.kinds
        is_text = not types or "string" in types
        if kinds is None:
            head = self.spelled(body.open + key + body.key_close)
        else:
            word = json.dumps(kinds.text) if is_text else "/[a-z]{1,10}/"
            head = f"{self.spelled(body.open + key + kinds.before)} {word} {self.spelled(kinds.after)}"
        close = body.close.replace(KEY, key)
        if not is_text:
            return f"{head} {self._spelling.value(with_definitions(value, schema))} {self.spelled(close)}"
        if choices := _choices(value):
            made = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
            return f"{head} ({made}) {self.spelled(close)}"
        return f"{head} {self._until(close)}"

    def _until(self, close: str) -> str:
        """Any text up to a marker, and the marker."""
        special = [part for part in self._spelling.split(close.lstrip()) if isinstance(part, int)]
        if special and isinstance(self._spelling.split(close.lstrip())[0], int):
            return f"TEXT {self.spelled(close.lstrip())}"
        return self._rule(f"TEXT {self.spelled(close)}", "[lazy]")


def _quoted(text: str) -> str:
    """JSON as a text of Lark."""
    return json.dumps(text, ensure_ascii=False)


def _object(pairs: Sequence[tuple[str, str]]) -> str:
    inner = ' SPACE "," SPACE '.join(f'{_quoted(key)} SPACE ":" SPACE {value}' for key, value in pairs)
    return f'"{{" SPACE {inner} SPACE "}}"'


def _choices(schema: object) -> list[str]:
    """The texts of an enum, or of a constant."""
    if not isinstance(schema, Mapping):
        return []
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return [value for value in values if isinstance(value, str) and value] if isinstance(values, list) else []
