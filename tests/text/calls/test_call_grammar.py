"""Grammars of calls take what templates print, and refuse other names and arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from formats import FORMATS
from replies import Arguments, printed_with

from opsin.errors import RequestError
from opsin.gguf import File
from opsin.grammar import Grammar, Grammars, Matcher, Trigger
from opsin.grammar.schema import inline
from opsin.hub.bundled import bundled
from opsin.text import ChatTemplate, Tokenizer
from opsin.text.calls import CallSpelling, ReplyFormat

SCHEMA = {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]},
    "places": {"type": "array", "items": {"type": "string"}}, "exact": {"$ref": "#/$defs/Exact"},
    }, "required": ["city"], "additionalProperties": False, "$defs": {"Exact": {"type": "boolean"}}}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
]
GOOD: list[list[tuple[str, Arguments]]] = [
    [("get_weather", {"city": 'Ulm "x" <b> {é}', "days": 3, "unit": "C", "places": ["a", "b"], "exact": True})],
    [("get_weather", {"city": "Ulm"})],
    [("ping", {})],
    [("ping", {}), ("get_weather", {"city": "New\nYork", "exact": False})],
]
BAD: list[tuple[str, Arguments]] = [
    ("get_wether", {"city": "Ulm"}), ("get_weather", {}), ("get_weather", {"city": "Ulm", "days": "three"}),
    ("get_weather", {"city": "Ulm", "unit": "K"}), ("ping", {"x": 1}), ("get_weather", {"town": "Ulm"}),
    ("get_weather", {"city": "Ulm", "exact": 1}),
]  # fmt: skip
NAMES = sorted(set(FORMATS) - {"headed"})  # held to the other of the two ways in which headers are written


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    with File.open(bundled()) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    return Grammars(tokenizer, tokenizer.vocabulary_size)


@cache
def published(path: Path) -> Grammars:
    """Of a vocabulary in llama.cpp's sources: two of these tests have the same."""
    with File.open(path) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    return Grammars(tokenizer, tokenizer.vocabulary_size)


def vocabulary(tokenizer: Tokenizer) -> CallSpelling:
    return CallSpelling(tokenizer.split, inline, tokenizer.end_ids)


def ending(name: str, text: str) -> str:
    """A turn without what ends it."""
    return re.sub(r"(<\|im_end\|>|<\|eot_id\|>|<\|call\|>)\s*$", "" if name != "channels" else "<|call|>", text)


def takes(grammars: Grammars, grammar: str, text: str) -> bool:
    """Whether a text is a whole answer."""
    matcher, tokenizer = grammars.start(Grammar.lark(grammar)), grammars.tokenizer
    assert isinstance(matcher, Matcher)
    if not matcher.takes(tokenizer.encode(text, special=True, first=False)):
        return False
    mask = matcher.mask()
    return matcher.ended or any(mask[end >> 3] >> (end & 7) & 1 for end in tokenizer.end_ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_grammar_takes_what_a_template_prints(grammars: Grammars, name: str) -> None:
    template = ChatTemplate(FORMATS[name])
    format = ReplyFormat.of(template)
    grammar = format.grammar(TOOLS, vocabulary(grammars.tokenizer), required=True)
    for calls in GOOD:
        if len(calls) > 1 and not format.calls.frame.several:
            continue
        text = ending(name, printed_with(template, format, calls, TOOLS))
        assert takes(grammars, grammar, text), text
        assert not takes(grammars, grammar, text[: len(text) // 2])
        assert not takes(grammars, grammar, "Yes. " + text)
    single = format.grammar(TOOLS, vocabulary(grammars.tokenizer), required=True, several=False)
    if format.calls.frame.several:
        assert not takes(grammars, single, ending(name, printed_with(template, format, GOOD[-1], TOOLS)))


@pytest.mark.parametrize("name", NAMES)
def test_a_grammar_refuses_other_names_and_arguments(grammars: Grammars, name: str) -> None:
    template = ChatTemplate(FORMATS[name])
    format = ReplyFormat.of(template)
    grammar = format.grammar(TOOLS, vocabulary(grammars.tokenizer), required=True)
    for call in BAD:
        text = ending(name, printed_with(template, format, [call], TOOLS))
        assert not takes(grammars, grammar, text), text
    one = format.grammar(TOOLS[1:], vocabulary(grammars.tokenizer), required=True)
    assert not takes(grammars, one, ending(name, printed_with(template, format, GOOD[1], TOOLS)))
    assert takes(grammars, one, ending(name, printed_with(template, format, GOOD[2], TOOLS)))


def test_text_is_free_until_a_call_begins(grammars: Grammars) -> None:
    format = ReplyFormat.of(ChatTemplate(FORMATS["json_blocks"]))
    grammar = format.grammar(TOOLS, vocabulary(grammars.tokenizer), required=False)
    lazy = Grammar.lark(grammar).lazy(Trigger(format.trigger))
    matcher, tokenizer = grammars.start(lazy), grammars.tokenizer
    for id in tokenizer.encode("Anything <at all> and <tool_call>"):
        assert matcher.mask() is None
        matcher.accept(id)
    mask = matcher.mask()
    assert mask is not None
    first = [id for id in range(tokenizer.vocabulary_size) if mask[id >> 3] >> (id & 7) & 1]
    assert {tokenizer.piece(id).strip()[:1] for id in first} <= {b"{", b""}


@pytest.mark.parametrize(("vocab", "name", "marker"), [
    ("qwen35", "tagged_lines", "<tool_call>"), ("deepseek-llm", "named_fenced", "<｜tool▁calls▁begin｜>"),
    ("gemma-4", "gemma", "<|tool_call>"), ("qwen35", "json_blocks", "<tool_call>"),
])  # fmt: skip
def test_markers_that_are_tokens_are_taken_as_tokens(sources: Path, vocab: str, name: str, marker: str) -> None:
    own = published(sources / f"ggml-vocab-{vocab}.gguf")
    tokenizer = own.tokenizer
    template = ChatTemplate(FORMATS[name])
    format = ReplyFormat.of(template)
    grammar = format.grammar(TOOLS, vocabulary(tokenizer), required=True)
    is_token = isinstance(tokenizer.split(marker)[0], int)
    assert ("<[" in grammar) == is_token
    for calls in GOOD:
        text = ending(name, printed_with(template, format, calls, TOOLS))
        assert takes(own, grammar, text), text
    assert not takes(own, grammar, ending(name, printed_with(template, format, [BAD[0]], TOOLS)))


def test_odd_schemas_are_refused_or_taken(grammars: Grammars) -> None:
    format = ReplyFormat.of(ChatTemplate(FORMATS["tagged_lines"]))

    def grammar(parameters: object) -> str:
        tool: Mapping[str, object] = {"type": "function", "function": {"name": "t", "parameters": parameters}}
        return format.grammar([tool], vocabulary(grammars.tokenizer), required=True)

    head, tail = "<tool_call>\n<function=t>\n", "</function>\n</tool_call>"
    for schema in ({}, None, [], "x", {"properties": []}, {"properties": {"a": None}}, {"required": "a"}):
        made = grammar(schema)
        if not isinstance(schema, dict) or "properties" not in schema or not schema["properties"]:
            assert takes(grammars, made, head + tail), schema
    nested: dict[str, object] = {"type": "string"}
    for _ in range(200):
        nested = {"type": "array", "items": nested}
    with pytest.raises(RequestError):
        grammar({"properties": {"a": nested}})
    with pytest.raises(RequestError, match="0 tools"):
        format.grammar([], vocabulary(grammars.tokenizer), required=True)
    odd = {"properties": {'a"\n\\x': {"enum": ['"', "\\", "</parameter>", "\n"]}}, "required": ['a"\n\\x']}
    text = f'{head}<parameter=a"\n\\x>\n</parameter>\n</parameter>\n{tail}'
    assert takes(grammars, grammar(odd), text)
    assert json.loads(json.dumps(odd)) == odd
