"""Fields that hold an answer to a form: a JSON schema, a grammar, a choice.

Each server's clients have words of their own for the same few forms. An answer has one form: who asks for two gets
none, but for `json_schema` beside `grammar`, which llama-server passes over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from opsin.api import Model
from opsin.errors import FieldError, RequestError
from opsin.grammar import Grammar, Trigger
from opsin.serve.fields import Fields, one_of, unbuilt
from opsin.serve.sampling_fields import SamplingFields

_Schema = Annotated[dict[str, Any] | bool | str, Meta(description="A JSON schema that the answer obeys.")]
_Gbnf = Annotated[str, Meta(description="A grammar in GBNF, or in Lark after %llguidance.")]
_Regex = Annotated[str, Meta(description="A regular expression that the answer matches whole.")]
_Choice = Annotated[list[str], Meta(max_length=10_000, description="The answer is one of these.")]
_Tags = Annotated[dict[str, Any] | str, Meta(description="Free text with tagged parts in it: {structures, triggers}.")]
_MOST_TRIGGERS = 256


class JsonSchemaFields(Fields, kw_only=True):
    """A schema with its name, as OpenAI has it."""

    name: Annotated[str | None, Meta(description="Is left aside.")] = None
    description: Annotated[str | None, Meta(description="Is left aside.")] = None
    schema: _Schema | None = None
    strict: Annotated[bool | None, Meta(description="Is left aside: schemas always hold.")] = None


class ResponseFormatFields(Fields, kw_only=True):
    """The form of an answer as OpenAI has it, and its relatives."""

    type: Annotated[
        str,
        one_of(
            *("text", "json_object", "json_schema", "json", "regex", "grammar", "structural_tag"),
            description="text, json_object, json_schema, json, regex, grammar or structural_tag.",
            hint="give text, json_object or json_schema",
        ),
    ]
    json_schema: JsonSchemaFields | None = None
    schema: _Schema | None = None
    value: Annotated[dict[str, Any] | bool | str | None, Meta(description="Of json and regex, as TGI has it.")] = None
    pattern: _Regex | None = None
    grammar: _Gbnf | None = None
    structures: Annotated[list[Any] | None, Meta(description="[{begin, schema, end}] of structural_tag.")] = None
    triggers: Annotated[list[str] | None, Meta(description="Texts after which one of them must follow.")] = None


class StructuredOutputsFields(Fields, kw_only=True):
    """The form of an answer as vLLM has it."""

    json: _Schema | None = None
    json_object: Annotated[bool | None, Meta(description="Any JSON object.")] = None
    regex: _Regex | None = None
    choice: _Choice | None = None
    grammar: Annotated[str | None, Meta(description="A grammar in GBNF or in Lark.")] = None
    structural_tag: _Tags | None = None
    disable_fallback: Annotated[bool | None, Meta(description="Is left aside: nothing falls back.")] = None
    disable_any_whitespace: Annotated[Any, unbuilt(False)] = None
    disable_additional_properties: Annotated[Any, unbuilt(False)] = None
    whitespace_pattern: Annotated[Any, unbuilt("")] = None


class TriggerFields(Fields, kw_only=True):
    """What has to be written before a lazy grammar begins, as llama-server has it."""

    type: Annotated[
        int, Meta(ge=0, le=1, description="0 for a token, 1 for a text.", extra={"hint": "give 0 or 1: no patterns"})
    ]
    value: Annotated[str, Meta(max_length=4096, description="The text.")] = ""
    token: Annotated[int, Meta(ge=0, le=1 << 31, description="The token.")] | None = None


class GrammarFields(SamplingFields, kw_only=True):
    """What form an answer must have. A struct of msgspec extends one other: each page of fields the page before."""

    response_format: ResponseFormatFields | None = None
    grammar: _Gbnf | None = None
    grammar_lazy: Annotated[bool, Meta(description="The grammar begins with one of its triggers.")] = False
    grammar_triggers: Annotated[list[TriggerFields], Meta(max_length=_MOST_TRIGGERS)] | None = None
    json_schema: _Schema | None = None
    format: Annotated[dict[str, Any] | str, Meta(description="json, or a JSON schema, as Ollama has it.")] | None = None
    structured_outputs: StructuredOutputsFields | None = None
    structural_tag: _Tags | None = None
    guided_json: _Schema | None = None
    guided_regex: _Regex | None = None
    guided_choice: _Choice | None = None
    guided_grammar: Annotated[str | None, Meta(description="A grammar in GBNF or in Lark.")] = None
    guided_whitespace_pattern: Annotated[Any, unbuilt("")] = None
    regex: _Regex | None = None
    ebnf: _Gbnf | None = None


@dataclass(frozen=True)
class AskedForm:
    """The form that a request asks for, and the field that says so."""

    path: str
    grammar: Grammar

    def check(self, model: Model) -> None:
        """Raises FieldError where it is wrong for this model, or cannot be met. That may take a moment."""
        with _named(self.path):
            model.text.grammars.start(self.grammar)


class _named:  # noqa: N801 - reads as a phrase
    """What is refused inside is this field's fault."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RequestError) and not isinstance(error, FieldError):
            raise FieldError(self._path, error.message, hint=error.hint) from None


def form_of(fields: GrammarFields) -> AskedForm | None:
    """What form is asked for, if any. Raises FieldError for a wrong one, and for two."""
    found: AskedForm | None = None
    for path, value, make in _asked(fields):
        if value is None:
            continue
        if found is not None:
            if (found.path, path) == ("grammar", "json_schema"):
                continue
            raise FieldError(path, f"{found.path} asks for a form, too", hint="give one of them")
        with _named(path):
            found = AskedForm(path, make(value))
    if not fields.grammar_lazy or found is None:
        return found
    triggers = [_trigger(trigger, number) for number, trigger in enumerate(fields.grammar_triggers or ())]
    if not triggers:
        raise FieldError("grammar_triggers", "there is none for a lazy grammar", hint="give some")
    return AskedForm(found.path, found.grammar.lazy(*triggers))


def _trigger(fields: TriggerFields, number: int) -> Trigger:
    if fields.type == 0 and fields.token is not None:
        return Trigger(id=fields.token)
    if not fields.value:
        raise FieldError(f"grammar_triggers[{number}].value", "there is none")
    return Trigger(fields.value)


# The field, what it says (None for nothing), and what makes a grammar of it. Any: what msgspec has checked.
_Asked = Iterator[tuple[str, Any, Callable[[Any], Grammar]]]


def _asked(fields: GrammarFields) -> _Asked:
    """All fields that may ask for a form."""
    yield "grammar", fields.grammar or None, Grammar.gbnf
    yield "json_schema", fields.json_schema, _schema
    if fields.response_format is not None:
        yield _response_format(fields.response_format)
    yield "format", fields.format or None, _format
    if fields.structured_outputs is not None:
        yield from _structured_outputs(fields.structured_outputs)
    yield "structural_tag", fields.structural_tag, _tags
    yield "guided_json", fields.guided_json, _schema
    yield "guided_regex", fields.guided_regex, Grammar.regex
    yield "guided_choice", fields.guided_choice, Grammar.choice
    yield "guided_grammar", fields.guided_grammar or None, _grammar
    yield "regex", fields.regex, Grammar.regex
    yield "ebnf", fields.ebnf or None, _grammar


def _response_format(fields: ResponseFormatFields) -> tuple[str, Any, Callable[[Any], Grammar]]:
    path, kind = "response_format", fields.type
    if kind == "text":
        return path, None, _schema
    if kind == "regex":
        pattern = fields.value if fields.pattern is None else fields.pattern
        return path, False if pattern is None else pattern, Grammar.regex
    if kind == "grammar":
        return f"{path}.grammar", fields.grammar or "", _grammar
    if kind == "structural_tag":
        return path, {"structures": fields.structures, "triggers": fields.triggers}, _tags
    if fields.json_schema is not None:
        return (
            f"{path}.json_schema.schema",
            {} if fields.json_schema.schema is None else fields.json_schema.schema,
            _schema,
        )
    if kind == "json_schema" and fields.schema is None:
        raise FieldError(f"{path}.json_schema", "there is none", hint='give {"name": ..., "schema": {...}}')
    if fields.schema is not None:
        return f"{path}.schema", fields.schema, _schema
    return (path, {}, _schema) if fields.value is None else (f"{path}.value", fields.value, _schema)


def _structured_outputs(fields: StructuredOutputsFields) -> _Asked:
    path = "structured_outputs"
    yield f"{path}.json", fields.json, _schema
    yield f"{path}.json_object", {} if fields.json_object else None, _schema
    yield f"{path}.regex", fields.regex, Grammar.regex
    yield f"{path}.choice", fields.choice, Grammar.choice
    yield f"{path}.grammar", fields.grammar or None, _grammar
    yield f"{path}.structural_tag", fields.structural_tag, _tags


def _format(given: Mapping[str, Any] | str) -> Grammar:
    return Grammar.json_object() if given == "json" else _schema(given)


def _schema(schema: Mapping[str, Any] | bool | str) -> Grammar:
    """A schema; an empty one is any object, as llama-server has it."""
    return Grammar.json_object() if schema in ({}, "") else Grammar.json_schema(schema)


def _grammar(text: str) -> Grammar:
    """GBNF, whose rules are written with ::=, or Lark."""
    return Grammar.gbnf(text) if "::=" in text else Grammar.lark(text)


def _tags(tags: Mapping[str, Any] | str) -> Grammar:
    try:
        given = json.loads(tags) if isinstance(tags, str) else tags
    except (ValueError, RecursionError):
        raise RequestError("the structural tag is no JSON") from None
    if not isinstance(given, Mapping):
        raise RequestError("a structural tag is no object")
    return Grammar.structural_tag(given)
