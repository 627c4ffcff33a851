"""Calls that are held to their form, whatever a model would write: required, named, allowed, and begun by itself."""

from __future__ import annotations

import json
from typing import Literal

import openai
import pydantic
import pytest
from running_server import running
from scripted import scripted
from test_tools import MESSAGES, OTHER, PARAMETERS, SPECIALS, TEMPLATE, TOOL, call
from tiny import tiny_llama

import opsin

SMALL = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False,
}  # fmt: skip
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SMALL}}
ASK = {"model": "x", "messages": MESSAGES, "max_tokens": 300, "tools": [WEATHER, OTHER]}
LIVELY = {"top_k": 0, "min_p": 0.0}
NAMED = {"type": "function", "function": {"name": "noon"}}


@pytest.fixture(scope="module", params=["tokens", "spelt", "told by the system"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "t.gguf"
    specials = SPECIALS if request.param == "tokens" else ()
    metadata = {} if request.param == "told by the system" else {"tokenizer.chat_template": TEMPLATE}
    tiny_llama(path, specials=specials, metadata=metadata)
    with opsin.load(path, threads=2, context=1024, sequences=4) as made:
        yield made


@pytest.fixture(scope="module")
def client(model):
    with running(lambda: model) as made, made.openai() as asking:
        yield asking


def calls(client, stream=False, **fields):
    """Names and arguments, and why the answer ended."""
    fields = {**ASK, "temperature": 2.0, **fields}
    if not stream:
        choice = client.chat.completions.create(**fields, extra_body=LIVELY).choices[0]
        made = [(one.function.name, one.function.arguments) for one in choice.message.tool_calls or []]
        assert not choice.message.content
        return made, choice.finish_reason
    names, arguments, reason = [], [], None
    for chunk in client.chat.completions.create(**fields, extra_body=LIVELY, stream=True):
        assert not chunk.choices[0].delta.content
        for one in chunk.choices[0].delta.tool_calls or []:
            names += [one.function.name] if one.function.name else []
            arguments += [""] if one.function.name else []
            arguments[-1] += one.function.arguments
        reason = chunk.choices[0].finish_reason or reason
    return list(zip(names, arguments, strict=True)), reason


def obeys(name, arguments):
    """Whether arguments are what the schema of the tool wants."""
    value = json.loads(arguments)
    if name == "noon":
        return value == {}
    return set(value) == {"city", "days"} and value["city"] in ("Rome", "Oslo") and value["days"] <= 9


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_call_is_made_and_obeys_its_schema(client, stream, seed):
    made, reason = calls(client, stream, tool_choice="required", seed=seed, parallel_tool_calls=False)
    assert (len(made), reason) == (1, "tool_calls")
    name, arguments = made[0]
    assert name in ("weather", "noon")
    assert obeys(name, arguments)


@pytest.mark.parametrize(
    "choice",
    [NAMED, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}],
)
def test_the_tool_that_is_named_is_called(client, choice):
    for seed in range(3):
        made, _ = calls(client, tool_choice=choice, seed=seed, parallel_tool_calls=False)
        assert [name for name, _ in made] == ["noon"]


@pytest.mark.parametrize("read", ["whole", "streamed"])
def test_a_call_that_the_model_begins_is_held_to_its_form(model, client, read):
    """It would go on with nonsense."""
    with scripted(model, "<tool_call>\n" + "x" * 400):
        made, reason = calls(client, read == "streamed", temperature=0, parallel_tool_calls=False)
    assert (len(made), reason) == (1, "tool_calls")
    assert obeys(*made[0])


def test_where_nothing_is_called_text_is_free(model, client):
    with scripted(model, "It <rains>."):
        choice = client.chat.completions.create(**ASK, temperature=0).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("It <rains>.", None, "stop")


FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {
    "type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"],
    "additionalProperties": False}}}  # fmt: skip


def test_an_answer_has_its_form_or_is_a_call(model, client):
    for text, is_call in (("{" + "x" * 90, False), (call("noon", "{}"), True)):
        with scripted(model, text):
            choice = client.chat.completions.create(**ASK, temperature=0, response_format=FORM).choices[0]
        assert bool(choice.message.tool_calls) == is_call
        if not is_call:
            assert json.loads(choice.message.content)["mood"] in ("good", "bad")


def test_calls_that_must_be_made_leave_no_room_for_a_form(client):
    made, _ = calls(client, tool_choice="required", response_format=FORM, seed=1, parallel_tool_calls=False)
    assert len(made) == 1


def test_the_clients_own_models_are_filled(client):
    class Weather(pydantic.BaseModel):
        city: Literal["Rome", "Oslo"]
        days: Literal[1, 2]

    answer = client.chat.completions.parse(
        **{**ASK, "tools": [openai.pydantic_function_tool(Weather, name="weather")]}, tool_choice="required",
        parallel_tool_calls=False, seed=1, extra_body=LIVELY,
    )  # fmt: skip
    filled = answer.choices[0].message.tool_calls[0].function.parsed_arguments
    assert isinstance(filled, Weather)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [OTHER, {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
          "tool_choice": "required"}, "tools[1].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
         "tools[0].function.parameters"),
        ({"extra_body": {"grammar": 'root ::= "a"'}}, "grammar"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_named(client, fields, name):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASK, "max_tokens": 5, **fields})
    assert caught.value.param == name


def test_a_schema_that_cannot_be_held_lets_arguments_be_where_calls_are_free(model, client):
    odd = {"type": "function", "function": {"name": "odd", "parameters": {**PARAMETERS, "not": {"required": ["x"]}}}}
    with scripted(model, call("odd", '{"city": 5}')):
        choice = client.chat.completions.create(**{**ASK, "tools": [odd, TOOL]}, temperature=0).choices[0]
    assert choice.message.tool_calls[0].function.arguments == '{"city": 5}'


def test_python_requires_calls(model):
    def noon(city: Literal["Rome", "Oslo"]):
        """Tells."""

    answer = model.chat("noon?", tools=[noon], tool_choice="noon", parallel_tool_calls=False, seed=1, top_k=0)
    [made] = answer.tool_calls
    assert (made.name, made.read()["city"] in ("Rome", "Oslo")) == ("noon", True)
