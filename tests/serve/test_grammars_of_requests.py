"""Answers held to a form over HTTP, in the words of every server's clients."""

from __future__ import annotations

import json
import re

import pytest

CHAT, NATIVE, OPENAI = "/v1/chat/completions", "/completion", "/v1/completions"
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "n"],
    "additionalProperties": False,
}
GBNF, LARK = 'root ::= "yes" | "no"', '%llguidance {}\nstart: "yes" | "no"'
LAZY = {"grammar": GBNF, "grammar_lazy": True}
TAGS = {"structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}], "triggers": ["<f>"]}


def is_object(text):
    return set(json.loads(text)) == {"colour", "n"}


def is_json(text):
    return isinstance(json.loads(text), dict)


def is_yes_or_no(text):
    return text in ("yes", "no")


def is_date(text):
    return bool(re.fullmatch(r"[0-9]{4}-[0-9]{2}", text))


FORMS = [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}, is_object),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, is_object),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, is_object),
    ({"response_format": {"type": "json", "value": SCHEMA}}, is_object),
    ({"response_format": {"type": "regex", "value": r"\d{4}-\d\d"}}, is_date),
    ({"response_format": {"type": "regex", "pattern": r"\d{4}-\d\d"}}, is_date),
    ({"response_format": {"type": "grammar", "grammar": GBNF}}, is_yes_or_no),
    ({"json_schema": SCHEMA}, is_object),
    ({"json_schema": json.dumps(SCHEMA)}, is_object),
    ({"grammar": GBNF}, is_yes_or_no),
    ({"grammar": LARK}, is_yes_or_no),
    ({"grammar": GBNF, "json_schema": SCHEMA}, is_yes_or_no),
    ({"format": SCHEMA}, is_object),
    ({"guided_json": SCHEMA}, is_object),
    ({"guided_json": json.dumps(SCHEMA)}, is_object),
    ({"guided_regex": r"\d{4}-\d\d"}, is_date),
    ({"guided_choice": ["yes", "no"]}, is_yes_or_no),
    ({"guided_grammar": GBNF}, is_yes_or_no),
    ({"guided_grammar": 'start: "yes" | "no"'}, is_yes_or_no),
    ({"structured_outputs": {"json": SCHEMA}}, is_object),
    ({"structured_outputs": {"regex": r"\d{4}-\d\d"}}, is_date),
    ({"structured_outputs": {"choice": ["yes", "no"]}}, is_yes_or_no),
    ({"structured_outputs": {"grammar": GBNF}}, is_yes_or_no),
    ({"regex": r"\d{4}-\d\d"}, is_date),
    ({"ebnf": GBNF}, is_yes_or_no),
]  # fmt: skip


def body(path, **fields):
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hi"}
    return {**asked, "max_tokens": 200, "seed": 1, **fields}


def text_of(reply, path):
    """The text of an answer, and why it ended."""
    told = reply.json
    if path == NATIVE:
        return told["content"], "stop" if told["stop_type"] in ("eos", "word") else "length"
    choice = told["choices"][0]
    return (choice["message"]["content"] if path == CHAT else choice["text"]), choice["finish_reason"]


@pytest.mark.parametrize(("form", "holds"), FORMS, ids=lambda one: "-".join(one) if isinstance(one, dict) else "")
def test_every_word_for_a_form_is_obeyed(server, form, holds):
    for path in (CHAT, NATIVE):
        reply = server.ask(path, body(path, **form))
        assert reply.status == 200, reply.text
        text, reason = text_of(reply, path)
        assert holds(text), text
        assert reason == "stop"


@pytest.mark.parametrize("path", [CHAT, OPENAI, NATIVE])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 0}, {"n_probs": 2}])
def test_streams_obey_as_whole_answers_do(server, path, options):
    asked = body(path, json_schema=SCHEMA, **options)
    whole, _ = text_of(server.ask(path, asked), path)
    assert is_object(whole)
    told = server.ask(path, {**asked, "stream": True}).body.decode()
    events = [json.loads(line[6:]) for line in told.split("\n\n") if line and line != "data: [DONE]"]
    assert text_of_events(events, path) == whole


def text_of_events(events, path):
    if path == NATIVE:
        return "".join(event["content"] for event in events)
    choices = [choice for event in events for choice in event["choices"]]
    if path == OPENAI:
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_several_answers_each_have_the_form(server):
    reply = server.ask(CHAT, body(CHAT, n=4, json_schema=SCHEMA, temperature=1.5)).json
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert all(map(is_object, texts))
    assert len(set(texts)) > 1


def test_any_object(server):
    for form in (
        {"response_format": {"type": "json_object"}}, {"json_schema": {}}, {"format": "json"},
        {"structured_outputs": {"json_object": True}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    ):  # fmt: skip
        text, _ = text_of(server.ask(CHAT, body(CHAT, max_tokens=1, logprobs=True, **form)), CHAT)
        assert text.strip() in ("", "{")


def test_tags_stand_in_free_text(server):
    for form in (
        {"response_format": {"type": "structural_tag", **TAGS}}, {"structural_tag": TAGS},
        {"structured_outputs": {"structural_tag": json.dumps(TAGS)}},
    ):  # fmt: skip
        assert server.ask(CHAT, body(CHAT, max_tokens=5, **form)).status == 200


def test_a_lazy_grammar_waits_for_its_trigger(server):
    """A model that writes at random may write anything until then, and some letter soon."""
    triggers = [{"type": 1, "value": letter} for letter in "abcdefghijklmnopqrstuvwxyz"]
    lazy = {"grammar": 'root ::= [a-z] "-go"', "grammar_lazy": True, "grammar_triggers": triggers}
    text, reason = text_of(server.ask(NATIVE, body(NATIVE, temperature=3, top_k=0, min_p=0, **lazy)), NATIVE)
    assert re.fullmatch(r"[^a-z]*[a-z]-go", text, re.DOTALL), text
    assert reason == "stop"


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        ({"json_schema": {"not": {}}}, "json_schema", '"not"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": True}}}},
         "response_format.json_schema.schema", "uniqueItems"),
        ({"response_format": {"type": "json_object", "schema": {"type": "huh"}}}, "response_format.schema", "huh"),
        ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "json_schema", "minimum"),
        ({"json_schema": 5}, "json_schema", "is not"),
        ({"json_schema": "{"}, "json_schema", "no JSON"),
        ({"response_format": "json_object"}, "response_format", "is not"),
        ({"response_format": {"type": "json_schema", "json_schema": 123}}, "response_format.json_schema", "is not"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "there is none"),
        ({"response_format": {"type": "regex"}}, "response_format", "regular expression"),
        ({"response_format": {}}, "response_format.type", "there is none"),
        ({"grammar": "root ::= x"}, "grammar", "no rule 'x'"),
        ({"grammar": "root ::= <|nope|>"}, "grammar", "no special token"),
        ({"guided_regex": "(?=a)b"}, "guided_regex", "look-around"),
        ({"guided_choice": []}, "guided_choice", "choices"),
        ({"structured_outputs": {"structural_tag": "{"}}, "structured_outputs.structural_tag", "no JSON"),
        ({"structural_tag": {}}, "structural_tag", "structural tag"),
        ({"guided_choice": ["a"], "guided_regex": "b"}, "guided_choice", "guided_regex asks for a form, too"),
        ({"response_format": {"type": "json_object"}, "grammar": GBNF}, "response_format", "grammar asks"),
        (LAZY, "grammar_triggers", "none"),
        ({**LAZY, "grammar_triggers": [{"type": 2, "value": "a"}]}, "grammar_triggers[0].type", "out of range"),
        ({**LAZY, "grammar_triggers": [{"type": 1}]}, "grammar_triggers[0].value", "none"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_a_400_that_names_field_and_keyword(server, fields, param, word):
    for path in (CHAT, NATIVE):
        reply = server.ask(path, body(path, **fields))
        assert (reply.status, reply.json["error"]["param"]) == (400, param)
        assert word in reply.json["error"]["message"]
    stream = server.ask(CHAT, body(CHAT, stream=True, **fields))
    assert stream.status == 400


def test_the_table_of_the_vocabulary_is_there_before_the_first_grammar(server, text_model):
    assert text_model.text.grammars.is_prepared
