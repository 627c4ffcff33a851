"""JSON schemas: bounded before llguidance sees them, and written as Lark.

What llguidance cannot hold to, it refuses. What it does not refuse and we decide: white space, `oneOf`, how many digits
numbers have, and formats that JSON Schema does not define, which are notes for people there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Final, TypeGuard

from opsin.errors import RequestError

MAX_CHARACTERS: Final = 1 << 18
MAX_NESTING: Final = 64
MAX_VALUES: Final = 20_000
_SPACE = r" |\n{1,2}[ \t]{0,20}"  # between values: without a bound a weak model writes it for ever
_OPTIONS: Mapping[str, object] = {"coerce_one_of": True, "whitespace_flexible": True, "whitespace_pattern": _SPACE}
_FORMATS = frozenset((  # that JSON Schema defines
    "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
    "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer", "regex",
))  # fmt: skip
_DIALECT = re.compile(r"https?://json-schema\.org/")
_EDGE = 1e-6
_FAR = 10**18  # where whole numbers end that have no bound: a weak model writes digits for ever
_FINE, _NARROW = 1e-9, 0.01  # what bounded numbers are multiples of, and the span that has room for many of these
_VALUES = frozenset(("const", "default", "enum", "example", "examples"))  # hold values, not schemas


def lark_of_schema(schema: Mapping[str, object] | bool | str) -> str:
    """Lark for a value that obeys a schema, and some white space before it. Raises RequestError."""
    given = _read(schema) if isinstance(schema, str) else schema
    return f"start: /({_SPACE})?/ value\nvalue: {inline(given)}\n"


def inline(schema: object) -> str:
    """A schema inside Lark."""
    if not isinstance(schema, Mapping | bool):
        raise RequestError(f"a JSON schema of the type {type(schema).__name__}", hint="give an object")
    checked = _checked(schema, MAX_NESTING, [MAX_VALUES])
    if isinstance(checked, bool):
        if not checked:
            raise RequestError("the schema is false: no value obeys it")
        checked = {}
    assert isinstance(checked, dict)
    text = json.dumps({**checked, "x-guidance": _OPTIONS}, ensure_ascii=False)
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"a JSON schema of {len(text)} characters", hint=f"give at most {MAX_CHARACTERS}")
    return f"%json {text}"


def _read(text: str) -> object:
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"a JSON schema of {len(text)} characters", hint=f"give at most {MAX_CHARACTERS}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the JSON schema is no JSON: {ascii(str(error))[1:-1]:.100}") from None


def _checked(value: object, nesting: int, left: list[int], *, is_schema: bool = True) -> object:
    """The same value, without notes for people. Raises RequestError for what is too large, or no JSON."""
    left[0] -= 1
    if left[0] < 0:
        raise RequestError(f"the JSON schema has more than {MAX_VALUES} values", hint="give a smaller one")
    if nesting == 0:
        raise RequestError(f"the JSON schema nests deeper than {MAX_NESTING}", hint="give a flatter one")
    if isinstance(value, Mapping):
        made = {}
        for key, part in value.items():
            if not isinstance(key, str):
                raise RequestError(f"a key of the JSON schema is {key!r:.40}", hint="give texts")
            if not (is_schema and _is_note(key, part)):
                made[key] = _checked(part, nesting - 1, left, is_schema=is_schema and key not in _VALUES)
        return _ending(_apart(made)) if is_schema else made
    if isinstance(value, list | tuple):
        return [_checked(part, nesting - 1, left, is_schema=is_schema) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"the JSON schema holds {value}", hint="give finite numbers")
    if isinstance(value, float) and value.is_integer() and is_schema:
        return int(value)  # as JSON Schema counts
    if value is None or isinstance(value, str | int | float):
        return value
    raise RequestError(f"the JSON schema holds a {type(value).__name__}", hint="give what JSON has")


def _is_note(key: str, value: object) -> bool:
    """Whether a part of a schema holds nobody to anything: formats and dialects that JSON Schema does not define."""
    if not isinstance(value, str):
        return False
    return (key == "format" and value not in _FORMATS) or (key == "$schema" and not _DIALECT.match(value))


def _apart(schema: dict[str, object]) -> dict[str, object]:
    """A whole number is left out at an edge of less than one: there llguidance 1.9 takes the edge itself."""
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = (high if _is_number(high) else most), (low if _is_number(low) else least)
    if _is_number(low) and _is_number(above) and low == int(low) and 0 < above - low < 1:
        schema = {key: value for key, value in schema.items() if key != "exclusiveMinimum"} | {"minimum": low + _EDGE}
    if _is_number(high) and _is_number(below) and high == int(high) and 0 < high - below < 1:
        schema = {key: value for key, value in schema.items() if key != "exclusiveMaximum"} | {"maximum": high - _EDGE}
    return schema


def _ending(schema: dict[str, object]) -> dict[str, object]:
    """Numbers of a few digits, where nothing is lost by it: plain ones may have exponents, which bounds rule out."""
    told = schema.get("type")
    kinds = told if isinstance(told, list) else [told]
    if schema.keys() & {"const", "enum"} or not ("integer" in kinds or "number" in kinds):
        return schema
    below = [value for key in ("minimum", "exclusiveMinimum") if _is_number(value := schema.get(key))]
    above = [value for key in ("maximum", "exclusiveMaximum") if _is_number(value := schema.get(key))]
    low, high = max(below, default=-_FAR), min(above, default=_FAR)
    if low >= high or ("number" in kinds and not (below or above)):
        return schema
    ends = {**({} if below else {"minimum": -_FAR}), **({} if above else {"maximum": _FAR})}
    is_fine = "number" in kinds and "multipleOf" not in schema and high - low > _NARROW
    return {**schema, **ends, **({"multipleOf": _FINE} if is_fine else {})}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
