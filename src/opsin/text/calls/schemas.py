"""What kinds of values the arguments of tools have, as their JSON schemas say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

_MAX_LOOKED = 200  # schemas within one
_MAX_DEPTH = 20


class ArgumentKind(Enum):
    """How a value stands between tags: a text as it is, all else as JSON."""

    TEXT = "text"
    TEXT_OR_NULL = "text or null"
    JSON = "json"


def functions_of(tools: Sequence[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """The schemas of the arguments of these tools, by name. Tools without a function are left out."""
    found: dict[str, Mapping[str, object]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            schema = function.get("parameters", function.get("input_schema"))
            found[name] = schema if isinstance(schema, Mapping) else {}
    return found


def argument_kinds(tools: Sequence[Mapping[str, object]]) -> dict[str, dict[str, ArgumentKind]]:
    """By tool and argument."""
    return {name: _kinds(schema) for name, schema in functions_of(tools).items()}


def _kinds(schema: Mapping[str, object]) -> dict[str, ArgumentKind]:
    found = {}
    for key, value in properties_of(schema).items():
        types = types_of(value, schema)
        is_text = not types or "string" in types
        found[key] = (
            ArgumentKind.JSON if not is_text
            else ArgumentKind.TEXT_OR_NULL if types == {"string", "null"}
            else ArgumentKind.TEXT
        )  # fmt: skip
    return found


def properties_of(schema: Mapping[str, object]) -> dict[str, object]:
    """The arguments that a schema names."""
    properties = schema.get("properties")
    return {str(key): value for key, value in properties.items()} if isinstance(properties, Mapping) else {}


def is_required(key: str, schema: Mapping[str, object]) -> bool:
    """Whether an argument must be given."""
    required = schema.get("required")
    return isinstance(required, list) and key in required


def with_definitions(schema: object, root: Mapping[str, object]) -> dict[str, object]:
    """A schema out of a larger one, with what it may refer to there."""
    known = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return {**known, **schema} if isinstance(schema, Mapping) else {}


def types_of(schema: object, root: Mapping[str, object]) -> set[str]:
    """The types that a schema allows, as far as it names them; empty where it names none."""
    found: set[str] = set()
    left = [schema]
    for _ in range(_MAX_LOOKED):
        if not left:
            return found
        one = left.pop()
        if not isinstance(one, Mapping):
            return set()
        if isinstance(reference := one.get("$ref"), str):
            left.append(_resolved(reference, root))
        elif branches := next(
            (one[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(one.get(key), list)), None
        ):
            left += branches
        elif types := _named_types(one):
            found |= types
        else:
            return set()
    return set()


def _named_types(schema: Mapping[str, object]) -> set[str]:
    if isinstance(named := schema.get("type"), str):
        return {named}
    if isinstance(named, list):
        return {str(one) for one in named}
    if isinstance(values := schema.get("enum"), list):
        return {_type(value) for value in values}
    return {_type(schema["const"])} if "const" in schema else set()


def _resolved(reference: str, root: Mapping[str, object]) -> object:
    """What `#/$defs/Name` points to."""
    place: object = root
    for part in reference.removeprefix("#/").split("/")[:_MAX_DEPTH]:
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def _type(value: object) -> str:
    for kind, name in ((bool, "boolean"), (str, "string"), (int | float, "number"), (Mapping, "object")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "array"
