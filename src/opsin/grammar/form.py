"""What a grammar is made of until a vocabulary is known: which texts are special tokens is a model's affair."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Special:
    """What a vocabulary knows of its special tokens.

    Attributes:
        split: a text's ordinary runs, and the ids of the special tokens between them.
        ends: ids that end an answer.
    """

    split: Callable[[str], list[str | int]]
    ends: tuple[int, ...] = ()


class Form(Protocol):
    """A grammar in whatever notation."""

    def source(self, special: Special) -> str:
        """The same as llguidance reads it. Raises RequestError for tokens that the vocabulary has not."""
        ...


@dataclass(frozen=True)
class Source:
    """Of no vocabulary."""

    text: str

    def source(self, special: Special) -> str:
        return self.text


@dataclass(frozen=True)
class Either:
    """One of several."""

    forms: tuple[Form, ...]

    def source(self, special: Special) -> str:
        names = [f"form_{number}" for number in range(len(self.forms))]
        made = [{"lark_grammar": "start: " + " | ".join(f"@{name}" for name in names)}]
        for name, form in zip(names, self.forms, strict=True):
            [grammar] = json.loads(form.source(special))["grammars"]
            made.append({"name": name, **grammar})
        return json.dumps({"grammars": made}, ensure_ascii=False)


def lark(text: str) -> str:
    """Lark as llguidance reads it, whatever it begins with."""
    return json.dumps({"grammars": [{"lark_grammar": text}]}, ensure_ascii=False)


def literal(text: str) -> str:
    """A text in Lark."""
    return json.dumps(text, ensure_ascii=False)


def spelled(text: str, special: Special) -> str:
    """A text in Lark whose special tokens are tokens: strings of Lark never match these."""
    return " ".join(f"<[{part}]>" if isinstance(part, int) else literal(part) for part in special.split(text))
