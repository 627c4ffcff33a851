"""Bodies of requests as structs: one declaration a field says its type, its range, and whether it is built.

A field that means something to other servers and is not built yet stands among the others as `unbuilt`, with the values
that ask for nothing; all others are refused by name. What nobody declared is left aside, as llama-server leaves it, but
for media: whatever a field's name says is a picture, a sound or a file is read where it is declared, or refused.
null means absent, as OpenAI's clients mean it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from opsin.api.messages import names_media
from opsin.errors import FieldError
from opsin.serve.errors import HttpError

_DEPTH = 64
_MARKS = 1 << 20  # a value in memory takes up to 64 bytes for each; what pictures are sent in has none
_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "bytes": "base64",
    "array": "a list", "object": "an object",
}  # fmt: skip
_MEETING = threading.Lock()
_STEP = re.compile(r"[^.\[\]]+")  # of a path


class Fields(Struct, kw_only=True):
    """What all bodies, and objects in them, extend.

    `elsewhere`: fields of the same body that are read as another kind. `together`: what holds of several fields at
    once, as a JSON schema for whoever reads the document.
    """

    media_hint: ClassVar[str] = (
        'send pictures as parts of a content: {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
    )
    elsewhere: ClassVar[frozenset[str]] = frozenset()
    together: ClassVar[Mapping[str, Any]] = {}


T = TypeVar("T", bound=Fields)


def unbuilt(*harmless: object, send: str | None = None) -> Meta:
    """Of a field that is not built. `harmless` are the values that ask for nothing, `send` what to send instead."""
    told = f"send {send}" if send else "leave it out"
    schema = {"enum": [*harmless, None]} if harmless else {"type": "null"}
    extra = {"harmless": harmless, "hint": told}
    return Meta(description=f"Not supported yet: {told}.", extra_json_schema=schema, extra=extra)


def one_of(*words: str, description: str, hint: str | None = None) -> Meta:
    """Of a text that is one of a few words; `hint` says what to give, where not all of them are worth naming."""
    told = hint or f"give {', '.join(words)}"
    # `$` would also let a line break follow
    pattern = rf"^({'|'.join(words)})(?![\s\S])"
    return Meta(pattern=pattern, description=description, extra={"hint": told})


def unbuilt_fields(kind: type[Fields]) -> Mapping[str, tuple[object, ...]]:
    """Names of those that are not built, with the values that ask for nothing."""
    return {name: field.harmless for name, field in _declared(kind).items() if field.harmless is not None}


def parse(body: bytes | bytearray) -> Mapping[str, Any]:
    """A JSON object. Raises HttpError 400 for anything else, however deep, and for what no text can hold.

    msgspec's own reader knows no depth, and calls half of a character truncated.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MARKS:
        raise HttpError(400, f"the body has more than {_MARKS} values", hint="send less text")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise HttpError(400, f"the body is no JSON: {ascii(str(error))[1:-1]:.200}") from None
    if not isinstance(value, dict):
        raise HttpError(400, "the body is no JSON object", hint='send {"messages": [...]}')
    _check(value, _DEPTH)
    return value


def _refuse_constant(constant: str) -> None:
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


def read(body: Mapping[str, Any], kind: type[T]) -> T:
    """A body's fields, as far as `kind` declares them. Raises FieldError, with the path of the field."""
    _meet(kind)
    given = _said(body, kind, "")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), given, kind) from None


@cache
def _meet(kind: type[Fields]) -> None:
    """Let msgspec look at a kind for the first time.

    It keeps what it finds before it has found all of it: another thread that meets the kind meanwhile would crash.
    """
    with _MEETING, suppress(msgspec.ValidationError):
        msgspec.convert({}, kind)


def _said(given: Mapping[str, Any], kind: type[Fields], path: str) -> dict[str, Any]:
    """What a body says, or a declared object in it, whose path ends with a dot: null is nothing, 5.0 a whole number.

    Raises FieldError for what asks for something that is not built, and for media where none is read.
    """
    declared, said = _declared(kind), dict[str, Any]()
    for name, value in given.items():
        field = declared.get(name)
        if field is None and value and name not in kind.elsewhere and names_media(name):
            raise FieldError(path + name, "nothing is read from here", hint=kind.media_hint)
        if value is None:
            continue
        if field is not None and field.harmless is not None and value not in field.harmless:
            raise FieldError(path + name, "not supported yet", hint=field.hint)
        said[name] = _plain(value, None if field is None else field.nested, path + name)
    return said


def _plain(value: object, nested: type[Fields] | None, path: str) -> object:
    """A value, of which all objects are of one kind."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [
            part if type(part) in (int, str) else _plain(part, nested, f"{path}[{place}]")
            for place, part in enumerate(value)
        ]
    return _said(value, nested, path + ".") if isinstance(value, dict) and nested is not None else value


@dataclass
class _Declared:
    """What a declaration says of its field, beside its type."""

    harmless: tuple[object, ...] | None = None
    hint: str | None = None
    nested: type[Fields] | None = None
    low: float | None = None
    high: float | None = None


@cache
def _declared(kind: type[Fields]) -> Mapping[str, _Declared]:
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        field = found[name] = _Declared()
        for part in _parts(hint):
            if isinstance(part, Meta):
                extra = part.extra or {}
                field.harmless, field.hint = extra.get("harmless", field.harmless), extra.get("hint", field.hint)
                field.low = part.ge if part.ge is not None else field.low
                field.high = part.le if part.le is not None else field.high
            elif isinstance(part, type) and issubclass(part, Fields):
                field.nested = part
    return found


def _parts(hint: object) -> Iterator[object]:
    yield hint
    for part in (*get_args(hint), *getattr(hint, "__metadata__", ())):
        yield from _parts(part)


def _refusal(error: str, given: Mapping[str, Any], kind: type[Fields]) -> FieldError:
    """msgspec's refusal in our words: which field, which value, what to give."""
    what, _, place = error.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    quoted = re.findall("`([^`]*)`", what)
    if what.startswith("Object missing"):
        path = f"{path}.{quoted[0]}".lstrip(".")
        return FieldError(path, "there is none", hint=_at(path, kind).hint)
    value: Any = given
    for step in _STEP.findall(path):
        value = value[int(step)] if isinstance(value, list) else value[step]
    field = _at(path, kind)
    words = " or ".join(_WORDS[word] for word in quoted[0].split(" | ") if word in _WORDS) if quoted else ""
    if " of length " in what:
        hint = f"give at {'most' if '<=' in what else 'least'} {what.split()[-1]}"
        return FieldError(path, f"{len(value)} of them", hint=field.hint or hint)
    if ", got " in what:
        return FieldError(path, f"{value!r:.80} is not {words}", hint=field.hint or _range(field))
    if "base64" in what:
        return FieldError(path, f"{value!r:.40} is no base64, or damaged", hint=field.hint)
    wrong = "cannot be taken" if "regex" in what else "is out of range"
    return FieldError(path, f"{value!r:.80} {wrong}", hint=field.hint or _range(field))


def _at(path: str, kind: type[Fields]) -> _Declared:
    """The declaration of a field."""
    field = _Declared(nested=kind)
    for step in _STEP.findall(path):
        if field.nested is not None and not step.isdecimal():
            field = _declared(field.nested).get(step, field)
    return field


def _range(field: _Declared) -> str | None:
    return None if field.low is None or field.high is None else f"give {field.low} to {field.high}"
