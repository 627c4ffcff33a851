"""Forms of answers as people give them to a model: a JSON schema, or a grammar."""

from __future__ import annotations

from collections.abc import Mapping

from opsin.errors import RequestError
from opsin.grammar import Grammar

Schema = Mapping[str, object] | bool | str


def form_of(schema: Schema | None, grammar: Grammar | str | None) -> Grammar | None:
    """One grammar; a text is GBNF. Raises RequestError for both together, and for what is neither."""
    if schema is not None and grammar is not None:
        raise RequestError("an answer has one form", hint="give either schema or grammar")
    if schema is not None:
        return Grammar.json_schema(schema)
    if isinstance(grammar, str):
        return Grammar.gbnf(grammar)
    if grammar is not None and not isinstance(grammar, Grammar):
        raise RequestError(f"grammar is of the type {type(grammar).__name__}", hint="give an opsin.Grammar, or GBNF")
    return grammar
