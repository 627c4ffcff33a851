"""What form an answer must have, for any model. Making one is cheap; whether it can be met shows when it is started."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opsin.errors import RequestError
from opsin.grammar.form import Either, Form, Source, lark, literal
from opsin.grammar.gbnf import Gbnf
from opsin.grammar.schema import lark_of_schema
from opsin.grammar.tags import Tags, tags_of

MAX_CHARACTERS = 1 << 18  # of a grammar
MAX_LEXEMES = 300  # of Lark: each may hold the one before twice, and llguidance counts slowly how large that is
_LEXEME = re.compile(r"^[ \t]*_?[A-Z][A-Z0-9_]*[^:\n]*:", re.MULTILINE)
MAX_CHOICES = 10_000


@dataclass(frozen=True)
class Trigger:
    """What has to be written before a lazy grammar begins: a text, or the token with an id.

    Attributes:
        inside: whether the grammar reads the trigger too; else it begins behind it.
    """

    text: str = ""
    id: int | None = None
    inside: bool = True


@dataclass(frozen=True)
class Grammar:
    """A form of answers. The same one may be used many times, by many threads.

    Attributes:
        form: the grammar in its own notation.
        triggers: everything may be written until one of these was; without them the form holds from the beginning.
    """

    form: Form
    triggers: tuple[Trigger, ...] = ()

    @classmethod
    def json_schema(cls, schema: Mapping[str, object] | bool | str) -> Grammar:
        """A JSON value that obeys a JSON schema, given as a value or as its text.

        `oneOf` holds as `anyOf` where its parts may overlap; keywords that cannot be held to are refused by name when
        the grammar is started. Some white space may stand before the value.
        """
        return cls(Source(lark(lark_of_schema(schema))))

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """A text that a regular expression matches whole, in Rust's syntax: without look-around, back-references.

        Digits (`\\d`) are those of ASCII.
        """
        from llguidance import regex_to_lark

        return cls.lark(f"start: /{regex_to_lark(_checked(pattern, 'a regular expression'), 'd')}/")

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A grammar in llguidance's kind of Lark; special tokens by id, as `<[5]>`."""
        lexemes = len(_LEXEME.findall(_checked(text, "a grammar")))
        if lexemes > MAX_LEXEMES:
            raise RequestError(f"a grammar of {lexemes} terminals", hint=f"give at most {MAX_LEXEMES}")
        return cls(Source(lark(text)))

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """A grammar in llama.cpp's notation, or in Lark where it begins with `%llguidance`."""
        if _checked(text, "a grammar").lstrip().startswith("%llguidance"):
            return cls.lark(text)
        return cls(Gbnf(text))

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Grammar:
        """One of some texts."""
        known = choices if isinstance(choices, list | tuple) else ()
        if not 0 < len(known) <= MAX_CHOICES or not all(isinstance(choice, str) for choice in known):
            raise RequestError(f"choices={choices!r:.80}", hint=f"give 1 to {MAX_CHOICES} texts")
        return cls.lark("start: " + " | ".join(map(literal, known)))

    @classmethod
    def structural_tag(cls, tags: Tags | Mapping[str, object]) -> Grammar:
        """Free text with tagged parts in it: after each trigger one of the tags that begin with it must follow.

        Given as `Tags`, or as {"structures": [{"begin": ..., "schema": ..., "end": ...}], "triggers": [...]}.
        """
        return cls(tags if isinstance(tags, Tags) else tags_of(tags))

    @classmethod
    def either(cls, *grammars: Grammar) -> Grammar:
        """A text that one of these takes. None of them is lazy."""
        return cls(Either(tuple(grammar.form for grammar in grammars)))

    def lazy(self, *triggers: Trigger) -> Grammar:
        """The same, but everything may be written until one of the triggers was."""
        return replace(self, triggers=triggers)


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise RequestError(f"{what} of the type {type(text).__name__}", hint="give a text")
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"{what} of {len(text)} characters", hint=f"give at most {MAX_CHARACTERS}")
    return text
