"""Answers held to a form, through the library."""

from __future__ import annotations

import json
import re

import pytest

import opsin

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model():
    with opsin.load(context=512) as model:
        yield model


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_k": 0}, {"logprobs": 2}])
def test_a_schema_holds_whatever_the_sampling(model, options):
    answer = model.chat("How many?", schema=SCHEMA, **options)
    assert set(json.loads(answer.text)) == {"colour", "count"}
    assert answer.reason == "stop"
    assert len(answer.logprobs) == (len(answer.ids) if "logprobs" in options else 0)


def test_a_schema_may_be_a_text(model):
    assert json.loads(model.chat("Hi", schema=json.dumps(SCHEMA), seed=1).text)["colour"] in ("red", "blue")


def test_grammars_of_every_kind(model):
    assert model.chat("Hi", grammar='root ::= "yes" | "no"', seed=1).text in ("yes", "no")
    assert model.complete("Hi", grammar=opsin.Grammar.choice(["left", "right"]), seed=1).text in ("left", "right")
    assert re.fullmatch(r"\d\d:\d\d", model.complete("Hi", grammar=opsin.Grammar.regex(r"\d\d:\d\d"), seed=1).text)


def test_many_answers_at_once_equal_those_alone(model):
    asked = [
        {"schema": SCHEMA, "seed": 1},
        {"seed": 2},
        {"grammar": "root ::= [a-z]{5}", "seed": 3},
        {"schema": SCHEMA},
    ]
    asked = [{"max_tokens": 60, "temperature": 0.0, **one} for one in asked]
    alone = [model.chat("How many?", **one).text for one in asked]
    together = [model.chat("How many?", **one) for one in asked]
    assert [answer.text for answer in together] == alone


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"schema": SCHEMA, "grammar": 'root ::= "a"'}, "an answer has one form"),
        ({"schema": {"not": {}}}, '"not"'),
        ({"schema": 5}, "of the type int"),
        ({"grammar": 5}, "grammar is of the type int"),
        ({"grammar": "root"}, "a rule was expected"),
        ({"grammar": opsin.Grammar.regex("(")}, "unclosed group"),
    ],
)
def test_a_wrong_form_is_refused_before_anything_runs(model, form, message):
    with pytest.raises(opsin.RequestError, match=message):
        model.chat("Hi", **form)
