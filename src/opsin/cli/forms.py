"""Options that hold answers to a form, as llama.cpp names them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.grammar import Grammar


def add_forms(parser: argparse.ArgumentParser) -> None:
    """One of four options; what a server answers is held so where a request asks for no form."""
    group = parser.add_argument_group("form of the answer", "docs/grammar.md says what can be held to")
    given = group.add_mutually_exclusive_group()
    given.add_argument("-j", "--json-schema", metavar="SCHEMA", help="a JSON schema that it obeys; {} for any object")
    given.add_argument("-jf", "--json-schema-file", type=expanded, metavar="FILE", help="the same in a file")
    given.add_argument("--grammar", metavar="GBNF", help="a grammar, in GBNF or, after %%llguidance, in Lark")
    given.add_argument("--grammar-file", type=expanded, metavar="FILE", help="the same in a file")


def asked_form(args: argparse.Namespace) -> Grammar | None:
    """What was asked for. Raises RequestError for what is none, or cannot be read."""
    schema = args.json_schema if args.json_schema_file is None else _text(args.json_schema_file)
    grammar = args.grammar if args.grammar_file is None else _text(args.grammar_file)
    if schema is None and grammar is None:
        return None
    from opsin.grammar import Grammar

    if grammar is not None:
        return Grammar.gbnf(grammar)
    return Grammar.json_object() if schema.strip() in ("", "{}") else Grammar.json_schema(schema)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is no text in UTF-8") from error
