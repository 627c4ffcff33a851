"""Structural tags: free text with parts in it that have a form, as tool calls have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opsin.errors import RequestError
from opsin.grammar.form import Special, lark, spelled
from opsin.grammar.schema import inline

MAX_TAGS: Final = 256
MAX_CHARACTERS: Final = 1 << 12
_SHAPE = '{"structures": [{"begin": ..., "schema": ..., "end": ...}], "triggers": [...]}'


@dataclass(frozen=True)
class Tag:
    """A part of an answer: `begin`, a value that obeys a JSON schema (its text), `end`."""

    begin: str
    schema: str
    end: str

    @classmethod
    def of(cls, begin: str, schema: Mapping[str, object] | bool, end: str) -> Tag:
        """Raises RequestError for texts that are too long, and for a schema that is none."""
        if not begin or len(begin) + len(end) > MAX_CHARACTERS:
            raise RequestError(f"a tag's begin is {begin!r:.40}", hint=f"give a text of at most {MAX_CHARACTERS}")
        return cls(begin, inline(schema), end)


@dataclass(frozen=True)
class Tags:
    """Free text, in which after each trigger one of the tags must follow that begin with it."""

    tags: tuple[Tag, ...]
    triggers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.tags) <= MAX_TAGS or not 0 < len(self.triggers) <= MAX_TAGS or "" in self.triggers:
            raise RequestError("structural tags", hint=f"give 1 to {MAX_TAGS} structures and triggers")
        for tag in self.tags:
            if not any(tag.begin.startswith(trigger) for trigger in self.triggers):
                raise RequestError(f"the tag {tag.begin!r:.80} begins with no trigger", hint="give one that it has")

    def source(self, special: Special) -> str:
        """Lark. A text that a trigger ends is a lexeme of its own, but where the trigger is a special token."""
        rules, parts = [], []
        for number, trigger in enumerate(self.triggers):
            bodies = [
                f"({self._written(tag.begin[len(trigger) :], special)} {tag.schema} {self._written(tag.end, special)})"
                for tag in self.tags
                if trigger == self._trigger(tag)
            ]
            if not bodies:
                continue
            parts.append(f"part_{number}")
            is_special = any(isinstance(part, int) for part in special.split(trigger))
            attribute = "" if is_special else "[lazy]"
            rules.append(f"before_{number}{attribute}: TEXT {spelled(trigger, special)}")
            rules.append(f"part_{number}: before_{number} body_{number}")
            rules.append(f"body_{number}: {' | '.join(bodies)}")
        return lark("\n".join([f"start: ({' | '.join(parts)})* tail", "tail: TEXT", r"TEXT: /(.|\n)*/", *rules]))

    def _trigger(self, tag: Tag) -> str:
        return max((trigger for trigger in self.triggers if tag.begin.startswith(trigger)), key=len)

    def _written(self, text: str, special: Special) -> str:
        return spelled(text, special) if text else ""


def tags_of(value: Mapping[str, object]) -> Tags:
    """What `structures` and `triggers` of a request's structural tag say. Raises RequestError."""
    structures, triggers = value.get("structures"), value.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list):
        raise RequestError("a structural tag", hint=f"give {_SHAPE}")
    made = []
    for structure in structures:
        parts = structure if isinstance(structure, Mapping) else {}
        begin, schema, end = parts.get("begin"), parts.get("schema", {}), parts.get("end", "")
        if not isinstance(begin, str) or not isinstance(end, str) or not isinstance(schema, Mapping | bool):
            raise RequestError(f"a structure is {json.dumps(structure)[:80]}", hint="give begin, schema and end")
        made.append(Tag.of(begin, schema, end))
    if not all(isinstance(trigger, str) for trigger in triggers):
        raise RequestError("a trigger is no text")
    return Tags(tuple(made), tuple(triggers))
