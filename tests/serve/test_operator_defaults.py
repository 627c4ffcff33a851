"""What an operator says once holds for requests that say nothing, and what is switched off is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_server import Running, running
from test_chat import MESSAGES

from opsin.errors import FieldError, RequestError
from opsin.grammar import Grammar
from opsin.serve.generation_request import check_defaults
from opsin.serve.options import Options
from opsin.serve.service import Service

DEFAULTS = {
    "temperature": 0.0,
    "n_predict": 3,
    "ignore_eos": True,
    "seed": 5,
    "top_k": 7,
    "stop": ["never"],
    "verbose": True,
}


@pytest.fixture(scope="module")
def told(text_model) -> Iterator[Running]:
    with running(lambda: text_model, slots=False, page=False, tags=("a", "b"), defaults=DEFAULTS) as made:
        yield made


def test_requests_that_say_nothing_are_answered_as_the_operator_says(told):
    body = {"messages": [{"role": "user", "content": "hi"}]}
    assert told.chat(**body).json["usage"]["completion_tokens"] == 3
    assert told.ask("/completion", {"prompt": "a"}).json["tokens_predicted"] == 3


def test_a_request_that_says_something_is_answered_so(told):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    assert told.chat(**body).json["usage"]["completion_tokens"] == 5
    assert told.ask("/completion", {"prompt": "a", "n_predict": 2}).json["tokens_predicted"] == 2


def test_answers_tell_llama_servers_own_object_where_the_operator_wants_it(told, server):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    assert told.chat(**body).json["__verbose"]["tokens_predicted"] == 2
    assert told.ask("/v1/completions", {"prompt": "a"}).json["__verbose"]["tokens_predicted"] == 3
    assert "__verbose" not in server.chat(**body).json


def test_the_properties_tell_what_holds(told):
    props = told.ask("/props").json
    params = props["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_k"], params["n_predict"]) == (0.0, 7, 3)
    assert (props["endpoint_slots"], props["ui"]) == (False, False)


def test_what_is_switched_off_is_gone(told, server):
    assert (told.ask("/slots").status, told.ask("/").status) == (501, 404)
    assert (server.ask("/slots").status, server.ask("/").status) == (200, 200)


def test_tags_are_told_with_the_model(told):
    assert told.ask("/v1/models").json["data"][0]["tags"] == ["a", "b"]


@pytest.mark.parametrize("defaults", [{"temperature": "hot"}, {"no_such_field": 1}, {"n_predict": -9}])
def test_a_default_that_no_request_could_have_is_refused_by_name(defaults):
    with pytest.raises(FieldError, match=f"^{next(iter(defaults))}: "):
        check_defaults(defaults)


@pytest.fixture(scope="module")
def held(text_model) -> Iterator[Running]:
    form = Grammar.gbnf('root ::= "yes" | "no"')
    with running(lambda: text_model, grammar=form) as made:
        yield made


def test_answers_have_the_operators_form_where_a_request_asks_for_none(held):
    for number in range(3):
        said = held.chat(messages=MESSAGES, seed=number).json["choices"][0]
        assert (said["message"]["content"] in ("yes", "no"), said["finish_reason"]) == (True, "stop")
        assert held.ask("/completion", {"prompt": "a", "seed": number}).json["content"] in ("yes", "no")
    own = held.chat(messages=MESSAGES, grammar='root ::= "perhaps"').json["choices"][0]["message"]["content"]
    assert own == "perhaps"


def test_with_tools_an_answer_has_the_operators_form_or_is_a_call(held):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    for number in range(3):
        message = held.chat(messages=MESSAGES, seed=number, tools=[tool], max_tokens=60).json["choices"][0]["message"]
        assert message["content"] in ("yes", "no") or message["tool_calls"]


def test_a_form_that_nothing_has_ends_the_start(text_model):
    form = Grammar.json_schema({"type": "integer", "minimum": 2, "maximum": 1})
    service = Service(Options(grammar=form), lambda: text_model)
    with pytest.raises(RequestError, match="minimum"):
        service._writing()
    service.shut()
