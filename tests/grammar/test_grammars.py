"""Grammars started for a model: schemas, expressions, choices, tags and lazy ones."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_schemas import DRAFTS, suite
from walks import ENDED, allowed, follow, walk

from opsin.errors import RequestError
from opsin.grammar import Grammar, Grammars, Trigger

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


# JSON schemas


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada", "age": 36}', True),
        ('\n{\n  "name": "Ada",\n  "age": 36\n}', True),
        (' {"name":"Ada","age":36}', True),
        ('{"name": "Ada"', False),
        ('{"age": 36}', None),
        ('{"name": "", "age": 1}', None),
        ('{"name": "A", "age": -1}', None),
        ('{"name": "A", "age": 1, "x": 2}', None),
        ("Sure", None),
    ],
)
def test_a_schema_holds_and_white_space_may_stand_before(smol, text, expected):
    assert walk(smol, Grammar.json_schema(PERSON), text) is expected
    assert walk(smol, Grammar.json_schema(json.dumps(PERSON)), text) is expected


def test_white_space_is_bounded(smol):
    for text in ("  {", "\n\n\n{", "\n" + " " * 40, '{   "name'):
        assert walk(smol, Grammar.json_schema(PERSON), text) is None


def test_a_schema_cannot_set_options(smol):
    sly = {"x-guidance": {"whitespace_flexible": False, "lenient": True}, **PERSON}
    assert walk(smol, Grammar.json_schema(sly), '{"name": "Ada", "age": 36}')
    with pytest.raises(RequestError, match='"not"'):
        smol.start(Grammar.json_schema({"x-guidance": {"lenient": True}, "not": {}}))


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {"type": "string"}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"if": {}, "then": {}}, '"if", "then"'),
        ({"type": "object", "propertyNames": {}}, '"propertyNames"'),
        ({"contains": {}}, '"contains"'),
        ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
        ({"type": "object", "properties": {"zz": False}, "required": ["zz"]}, "required property 'zz'"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"minLength": "a"}, "minLength"),
        ({"$ref": "http://127.0.0.1/schema"}, "http://127.0.0.1/schema"),
        ({"$ref": "#/nope"}, "/nope"),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"type": "string", "format": "idn-email"}, "Unknown format: idn-email"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_name(smol, schema, word):
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(RequestError, match=word) as raised:
            smol.start(Grammar.json_schema(schema))
        assert "\n" not in raised.value.message
        assert "%json" not in raised.value.message


def test_schemas_of_the_test_suite_are_taken(nano):
    """Here without an answer; `tests/serve/obey_schemas.py` has them answered."""
    cases = suite()
    if isinstance(cases, str):
        pytest.skip(cases)
    assert Counter(case.draft for case in cases) == {"draft7": 254, "draft2020-12": 368}
    assert Counter(case.draft for case in cases if is_taken(nano, case.schema)) >= Counter(DRAFTS)


def is_taken(grammars, schema):
    try:
        grammars.start(Grammar.json_schema(schema))
    except RequestError:
        return False
    return True


def test_formats_that_json_schema_does_not_define_are_notes(smol):
    schema = {
        "type": "object",
        "properties": {"format": {"type": "string", "format": "password"}},
        "required": ["format"],
    }
    assert walk(smol, Grammar.json_schema(schema), '{"format": "x"}')
    assert walk(smol, Grammar.json_schema({"const": {"format": "mine"}}), '{"format": "mine"}')
    assert walk(smol, Grammar.json_schema({"enum": [{"format": "mine"}]}), "{}") is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"exclusiveMinimum": 35, "maximum": 35.5}, ("35.5", "35.1"), ("35", "35.0", "34.9", "36")),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, ("0.5",), ("0", "0.0", "1", "1.0")),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, ("0.1",), ("0", "0.0", "0.5")),
        ({"minimum": -35.5, "exclusiveMaximum": -35}, ("-35.5", "-35.2"), ("-35", "-35.0", "-36")),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, ("-0.5", "-0.2"), ("0", "-0", "0.0")),
        ({"minimum": 2.0, "exclusiveMaximum": 4.0, "type": "integer"}, ("2", "3"), ("4", "1", "2.5")),
    ],
)
def test_bounds_of_numbers_hold_at_their_edges(smol, bounds, inside, outside):
    grammar = Grammar.json_schema({"type": "number", **bounds})
    assert all(walk(smol, grammar, text) for text in inside)
    assert not any(walk(smol, grammar, text) for text in outside)


@pytest.mark.parametrize(
    ("schema", "inside", "outside"),
    [
        ({"type": "integer"}, ("-5", "123456789012345678"), ("9" * 19, "-" + "9" * 19)),
        ({"type": ["integer", "null"], "maximum": 99}, ("99", "null", "-7"), ("100", "-" + "9" * 19)),
        ({"type": "number", "minimum": 0}, ("7", "12345.123456789"), ("0.1234567891", "0.5000000000", "9" * 19, "-1")),
        ({"type": "number", "exclusiveMinimum": 45, "maximum": 45.5}, ("45.123456789",), ("45.1234567891", "46")),
        # Those that such an end would harm.
        ({"type": "number"}, ("1e-30", "0." + "3" * 30), ()),
        ({"type": "integer", "minimum": 10**17}, ("3" + "0" * 17,), ("5", "9" * 19)),
        ({"type": "number", "minimum": 0, "maximum": 1e-6}, ("0.00000000012345",), ("1",)),
        ({"type": "number", "minimum": 0, "multipleOf": 0.5}, ("1.5",), ("1.25",)),
        ({"type": "integer", "enum": [2 * 10**18]}, (str(2 * 10**18),), ("5",)),
        ({"type": "object", "properties": {"type": {"type": "integer"}}, "required": ["type"]}, ('{"type": 5}',), ()),
    ],
)
def test_numbers_end(smol, schema, inside, outside):
    grammar = Grammar.json_schema(schema)
    assert [text for text in inside if not walk(smol, grammar, text)] == []
    assert [text for text in outside if walk(smol, grammar, text)] == []


def test_a_dialect_that_json_schema_does_not_define_is_a_note(smol):
    schema = {"$schema": "http://localhost:1234/mine.json", "type": "integer"}
    assert walk(smol, Grammar.json_schema(schema), "5")
    assert walk(smol, Grammar.json_schema({**schema, "$schema": "http://json-schema.org/draft-07/schema#"}), "5")


def test_one_of_holds_as_any_of_where_its_parts_overlap(smol):
    schema = Grammar.json_schema({"oneOf": [{"type": "string"}, {"enum": ["a", 5]}]})
    assert [walk(smol, schema, text) for text in ('"a"', "5", "6")] == [True, True, None]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "of the type list"),
        ([], "of the type list"),
        (5, "of the type int"),
        (False, "no value obeys it"),
        ({"const": float("nan")}, "holds nan"),
        ({"const": {1}}, "holds a set"),
        ({5: {}}, "a key of the JSON schema is 5"),
        ({"enum": ["x"] * 30_000}, "more than 20000 values"),
        ({"const": "x" * 300_000}, "300"),
        ("{" * 300_000, "300000 characters"),
    ],
)
def test_schemas_that_are_none_or_too_large(schema, message):
    with pytest.raises(RequestError, match=message):
        Grammar.json_schema(schema)


def test_schemas_that_nest_too_deeply():
    schema = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(RequestError, match="nests deeper than 64"):
        Grammar.json_schema(schema)
    while schema:  # not all at once: Python's own stack has an end
        schema = schema.pop("items")


# Expressions, choices, tags


def test_an_expression_is_matched_whole(smol):
    dates = Grammar.regex(r"\d{4}-\d\d-\d\d(/[a-z]+)?")
    assert [walk(smol, dates, text) for text in ("2024-01-31", "2024-01-31/x", "2024-01", "x", "２０２４")] == [
        True, True, False, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["(a", "a{2,1}", "(?=a)b", r"(a)\1", "[z-a]", "(?P<x>a)(?P=x)"])
def test_expressions_that_are_none(smol, pattern):
    with pytest.raises(RequestError, match="cannot be used"):
        smol.start(Grammar.regex(pattern))


def test_a_choice_is_one_of_its_texts(smol):
    texts = ["yes", 'no "never"', "é😀\n\\", "a/b<x>"]
    assert [walk(smol, Grammar.choice(texts), text) for text in [*texts, "ye", "noo"]] == [True] * 4 + [False, None]
    for wrong in ([], "yes", [5], None, ["x"] * 10_001):
        with pytest.raises(RequestError, match="choices="):
            Grammar.choice(wrong)


TAGS = {
    "structures": [
        {"begin": "<f=a>", "schema": PERSON, "end": "</f>"},
        {"begin": "<f=b>", "schema": {"type": "integer"}, "end": "</f>"},
        {"begin": "<|im_start|>call", "schema": {"type": "boolean"}, "end": "!"},
    ],
    "triggers": ["<f=", "<|im_start|>"],
}


def test_tagged_parts_stand_in_free_text(smol):
    tags = Grammar.structural_tag(TAGS)
    texts = {
        "": True,
        "plain text, 1 < 2": True,
        'so <f=b>5</f> and <f=a>{"name": "x", "age": 1}</f> done': True,
        "so <f=c>": None,
        'so <f=a>{"name": 5': None,
        "<f=b>5</g>": None,
        "so <|im_start|>calltrue": False,
        "so <|im_start|>calltrue!": True,
        "so <|im_start|>other": None,
    }
    assert {text: walk(smol, tags, text) for text in texts} == texts


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({}, "give {"),
        ({"structures": [], "triggers": ["x"]}, "give 1 to 256"),
        ({"structures": [{"begin": "<a>"}], "triggers": ["<b"]}, "'<a>' begins with no trigger"),
        ({"structures": [{"begin": "", "schema": {}}], "triggers": ["x"]}, "a tag's begin is ''"),
        ({"structures": [5], "triggers": ["x"]}, "a structure is 5"),
        ({"structures": [{"begin": "x", "schema": {}}], "triggers": [5]}, "a trigger is no text"),
    ],
)
def test_tags_that_are_none(tags, message):
    with pytest.raises(RequestError, match=message):
        Grammar.structural_tag(tags)


# Lazy grammars


@pytest.mark.parametrize(
    ("trigger", "texts"),
    [
        (Trigger("call:", inside=False), {"free call:12!": True, "call:x": None, "any text": False, "ccall:1": False}),
        (Trigger("12!", inside=True), {"free 12!": True, "free 1": False, "x": False}),
        (Trigger(id=1, inside=False), {"free <|im_start|>12!": True, "12!x": False, "<|im_start|>x": None}),
    ],
)
def test_a_lazy_grammar_begins_with_its_trigger(smol, trigger, texts):
    lazy = Grammar.regex("[0-9]+!").lazy(trigger)
    assert {text: walk(smol, lazy, text) for text in texts} == texts


def test_a_trigger_is_found_wherever_tokens_cut_it(nano):
    """Also within a token, and with what follows it in the same token."""
    lazy = Grammar.regex("<c>[0-9]+!").lazy(Trigger("<c>"))
    tokenizer = nano.tokenizer
    for before in ("", "a", "<", "<c", "x <<c<"):
        text = before + "<c>17!"
        for cut in range(len(text) + 1):
            ids = tokenizer.encode(text[:cut], first=False) + tokenizer.encode(text[cut:], first=False)
            assert follow(nano.start(lazy), ids, tokenizer.end_ids) == ENDED, (text, cut)


def test_the_only_text_that_may_come_is_told_in_the_ids_of_the_tokenizer(smol):
    tokenizer, plain = smol.tokenizer, Grammar.regex("(a|b) then comes the end(, or not|!)")
    for grammar in (plain, plain.lazy(Trigger("go:", inside=False))):
        matcher = smol.start(grammar)
        ids = tokenizer.encode("go:a" if grammar.triggers else "a", first=False)
        assert not matcher.forced()
        for id in ids:
            matcher.accept(id)
        forced = matcher.forced()
        assert tokenizer.decode(forced).strip() == "then comes the end"
        for id in [*forced, *tokenizer.encode("!", first=False)]:
            assert allowed(matcher.mask(), id)
            matcher.accept(id)
        assert matcher.ended and not matcher.forced()


def test_a_lazy_grammar_makes_no_masks_before_its_trigger(smol):
    matcher = smol.start(Grammar.regex("x").lazy(Trigger("go")))
    for id in smol.tokenizer.encode("plain text of some length"):
        assert matcher.mask() is None
        matcher.accept(id)
    assert len(matcher._tail) < 3


# One model's


def test_answers_have_nothing_in_common(smol):
    one, other = (smol.start(Grammar.choice(["aaa", "bbb"])) for _ in range(2))
    a, b = (smol.tokenizer.encode(text) for text in ("aaa", "bbb"))
    assert follow(one, a, ()) == ENDED
    assert follow(other, b, ()) == ENDED


def test_a_grammar_is_compiled_once_and_the_oldest_is_forgotten(nano, monkeypatch):
    grammars, compiled = Grammars(nano.tokenizer, nano.tokenizer.vocabulary_size), []
    compile = Grammars._compile
    monkeypatch.setattr(
        Grammars, "_compile", lambda self, table, source: compiled.append(source) or compile(self, table, source)
    )
    for _ in range(3):
        grammars.start(Grammar.regex("a"))
    assert len(compiled) == 1
    for count in range(20):
        grammars.start(Grammar.regex(f"b{{{count}}}"))
        grammars.start(Grammar.regex("a"))
    assert len(compiled) == 21
    grammars.start(Grammar.regex("b{0}"))
    assert len(compiled) == 22
    assert len(grammars._kept) == 16


def test_the_table_is_built_once_whoever_asks(nano, monkeypatch):
    from opsin.grammar import grammars as module

    built, table_of, gate = [], module.table_of, threading.Barrier(8)
    monkeypatch.setattr(module, "table_of", lambda *args: built.append(1) or table_of(*args))
    grammars = Grammars(nano.tokenizer, nano.tokenizer.vocabulary_size)

    def start(_):
        gate.wait()
        return walk(grammars, Grammar.choice(["a"]), "a")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(start, range(8)))
    assert built == [1]


def test_what_a_mask_says_and_what_is_taken_agree(nano):
    """A token that may not follow is an error that tells nothing of the text."""
    matcher = nano.start(Grammar.choice(["secret"]))
    wrong = nano.tokenizer.encode("x", first=False)[0]
    with pytest.raises(RequestError) as raised:
        matcher.accept(wrong)
    assert raised.value.message == "the grammar failed"


def test_the_stack_of_the_process_is_changed_by_one_model_at_a_time(nano, monkeypatch):
    usual, change, sizes = threading.stack_size(), threading.stack_size, []

    def slowly(size=0):
        sizes.append(size)
        time.sleep(0.01)
        return change(size)

    models = [Grammars(nano.tokenizer, nano.tokenizer.vocabulary_size) for _ in range(4)]
    monkeypatch.setattr(threading, "stack_size", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: [one.start(Grammar.regex(f"c{{{i}}}")) for i in range(4)], models))
    assert sizes[1::2] == [usual] * 16 and usual not in sizes[::2]
    assert change() == usual
