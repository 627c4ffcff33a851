"""JSON schemas by chance, of the kinds that people send; and those of JSON Schema's own test suite."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import platformdirs
from packages import download

VERSION = "4.26.0"
DRAFTS = {"draft7": 157, "draft2020-12": 164}  # of how many schemas at least are taken
_DIALECTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
_UNHELD = (
    {"not": {"type": "null"}}, {"uniqueItems": True}, {"if": {"type": "string"}, "then": {"minLength": 1}},
    {"contains": {"type": "integer"}}, {"propertyNames": {"maxLength": 9}}, {"dependentRequired": {"a": ["b"]}},
    {"unevaluatedProperties": False}, {"format": "idn-email"}, {"$ref": "http://example.org/schema"},
)  # fmt: skip
_PATTERNS = ("^[a-z]{2,6}$", "^[A-Z][a-z]+$", r"^\d{3}-\d{2}$", "^(red|green)$", "ab?c", r"^\w{1,8}@\w{1,8}\.com$")
_FORMATS = ("date", "time", "date-time", "email", "ipv4", "uuid", "hostname", "password")
_NAMES = ("name", "age", "city", "tags", "size", "colour", "note", "ok", "items", "é", "a b", 'q"')


class Case(NamedTuple):
    """A schema, and where it comes from."""

    name: str
    schema: Mapping[str, object] | bool
    draft: str = "draft2020-12"


def suite() -> list[Case] | str:
    """The schemas of the test suite that comes in jsonschema's sources; or why they cannot be had."""
    folder = platformdirs.user_cache_path("opsin-tests") / f"jsonschema-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    archive = next(folder.glob("*.tar.gz"), None) or download("jsonschema", VERSION, folder, source=True)
    if isinstance(archive, str):
        return archive
    return [case for draft in DRAFTS for case in _cases(archive, draft)]


def _cases(archive: Path, draft: str) -> Iterator[Case]:
    with tarfile.open(archive) as source:
        members = [member for member in source if f"/json/tests/{draft}/" in member.name]
        for member in sorted(members, key=lambda one: one.name):
            path = Path(member.name)
            if path.parent.name == draft and path.suffix == ".json":
                text = source.extractfile(member).read()
                for case in json.loads(text):
                    yield Case(f"{draft} {path.stem}: {case['description']}", _told(case["schema"], draft), draft)


def _told(schema: object, draft: str) -> object:
    """A schema that says which draft it is of."""
    return {"$schema": _DIALECTS[draft], **schema} if isinstance(schema, dict) else schema


def made(count: int, seed: int = 0) -> Iterator[Case]:
    """Schemas by chance: one in ten has something that cannot be held to."""
    chance = random.Random(seed)
    for number in range(count):
        schema = _Maker(chance).root()
        if chance.random() < 0.1:
            schema |= chance.choice(_UNHELD)
        yield Case(f"made {number}", schema)


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance, self._definitions = chance, {}

    def root(self) -> dict[str, object]:
        schema = self._any(3)
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _any(self, depth: int) -> dict[str, object]:
        leaves = (self._text, self._text, self._integer, self._number, self._fixed, self._plain)
        inner = (self._object, self._object, self._object, self._array, self._choice, self._reference)
        kind = self._chance.choice(leaves if depth == 0 else (*leaves, *inner, *inner))
        return kind(max(0, depth - 1))

    def _text(self, depth: int) -> dict[str, object]:
        which = self._chance.randrange(4)
        if which == 0:
            return {"type": "string", "pattern": self._chance.choice(_PATTERNS), "maxLength": 20}
        if which == 1:
            return {"type": "string", "format": self._chance.choice(_FORMATS), "maxLength": 60}
        least = self._chance.randrange(4)
        return {"type": "string", "minLength": least, "maxLength": least + self._chance.randrange(30)}

    def _integer(self, depth: int) -> dict[str, object]:
        low = self._chance.randrange(-100, 100)
        schema = {"type": "integer", "minimum": low, "maximum": low + self._chance.randrange(1, 300)}
        if self._chance.random() < 0.2:
            schema = {"type": "integer", "multipleOf": self._chance.choice((2, 5, 10)), "minimum": 0, "maximum": 90}
        return schema

    def _number(self, depth: int) -> dict[str, object]:
        low = self._chance.randrange(-50, 50)
        return {"type": "number", "exclusiveMinimum": low, "maximum": low + self._chance.choice((0.5, 1, 7.25, 1000))}

    def _fixed(self, depth: int) -> dict[str, object]:
        values = [1, -2.5, "x", "two words", None, True, [1, "a"], {"k": []}, 'ü\n"', 10**12]
        if self._chance.random() < 0.3:
            return {"const": self._chance.choice(values)}
        return {"enum": self._chance.sample(values, self._chance.randrange(1, 6))}

    def _plain(self, depth: int) -> dict[str, object]:
        kinds = ["boolean", "null", "integer"]
        return {"type": self._chance.choice([*kinds, self._chance.sample(kinds, 2)])}

    def _object(self, depth: int) -> dict[str, object]:
        names = self._chance.sample(_NAMES, self._chance.randrange(1, 5))
        schema = {
            "type": "object", "properties": {name: self._any(depth) for name in names},
            "required": [name for name in names if self._chance.random() < 0.7],
            "additionalProperties": False,
        }  # fmt: skip
        if self._chance.random() < 0.15:
            schema |= {"description": "a thing", "title": "Thing", "deprecated": False, "examples": [{"format": 1}]}
        return schema

    def _array(self, depth: int) -> dict[str, object]:
        least = self._chance.randrange(3)
        schema = {"type": "array", "items": self._any(depth), "minItems": least, "maxItems": least + 2}
        if self._chance.random() < 0.3:
            schema = {"type": "array", "prefixItems": [self._any(depth), self._any(depth)], "items": False}
        return schema

    def _choice(self, depth: int) -> dict[str, object]:
        word = self._chance.choice(("anyOf", "anyOf", "oneOf", "allOf"))
        if word == "allOf":
            return {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 40}]}
        return {word: [self._any(depth) for _ in range(self._chance.randrange(1, 4))]}

    def _reference(self, depth: int) -> dict[str, object]:
        name = f"d{len(self._definitions)}"
        self._definitions[name] = {}
        self._definitions[name] = self._any(min(depth, 1))
        if self._chance.random() < 0.3:
            link = {"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{name}"}]}
            self._definitions[name] = {
                "type": "object", "properties": {"v": {"type": "integer", "maximum": 99}, "next": link},
                "required": ["v", "next"], "additionalProperties": False,
            }  # fmt: skip
        return {"$ref": f"#/$defs/{name}"}
