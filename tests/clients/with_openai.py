"""openai for Python: schemas, `.parse()`, tools, several answers, log-probabilities and streams."""

from __future__ import annotations

import base64
import json
from typing import Annotated

import openai
import pytest
from pydantic import BaseModel, Field

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
ASKED = [{"role": "user", "content": "Ann is 30 years old and lives in Paris. Who is it?"}]
SETTINGS = {"model": "any", "messages": ASKED, "temperature": 0, "max_tokens": 200}


class Person(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    age: Annotated[int, Field(ge=0, le=200)]


@pytest.fixture(scope="module")
def client(text_address):
    with openai.OpenAI(base_url=text_address, api_key="none", max_retries=0) as made:
        yield made


def test_a_picture_is_stored_once_and_named_by_its_id(sight_address):
    with openai.OpenAI(base_url=sight_address, api_key="none", max_retries=0) as client:
        stored = client.files.create(file=("dot.png", base64.b64decode(DOT)), purpose="vision")
        picture = {"type": "file", "file": {"file_id": stored.id}}
        asked = [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]
        assert client.chat.completions.create(model="any", messages=asked, max_tokens=2).usage.prompt_tokens > 36
        made = client.responses.create(
            model="any",
            input=[{"role": "user", "content": [{"type": "input_image", "file_id": stored.id, "detail": "auto"}]}],
            max_output_tokens=16,
        )
        assert made.usage.input_tokens > 36
        assert client.files.delete(stored.id).deleted


def test_a_schema_is_parsed(client):
    assert isinstance(
        client.chat.completions.parse(**SETTINGS, response_format=Person).choices[0].message.parsed, Person
    )


def test_a_schema_is_parsed_from_a_stream(client):
    with client.chat.completions.stream(**SETTINGS, response_format=Person) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_tools_are_called_whole_and_streamed(client, choice):
    asked = {**SETTINGS, "tools": [TOOL], "tool_choice": choice}
    if choice == "required":  # a small model would call again and again
        asked["parallel_tool_calls"] = False
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls[0]
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert whole.function.name == streamed.function.name == "weather"
    assert isinstance(json.loads(whole.function.arguments)["city"], str)
    assert streamed.function.arguments == whole.function.arguments
    told = [*ASKED, {"role": "assistant", "tool_calls": [whole.model_dump()]}]
    told.append({"role": "tool", "tool_call_id": whole.id, "content": "rain"})
    after = client.chat.completions.create(**{**SETTINGS, "max_tokens": 10, "messages": told}, tools=[TOOL])
    assert after.choices[0].message.content or after.choices[0].message.tool_calls


def test_any_object(client):
    said = client.chat.completions.create(**SETTINGS, response_format={"type": "json_object"}).choices[0]
    assert said.message.content.strip().startswith("{")


def test_several_answers_with_log_probabilities(client):
    said = client.chat.completions.create(**{**SETTINGS, "max_tokens": 5}, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in said.choices] == [0, 1, 2]
    assert all(len(choice.logprobs.content[0].top_logprobs) == 2 for choice in said.choices)


def test_completions_with_log_probabilities_and_echo(client):
    said = client.completions.create(model="any", prompt="The sky is", max_tokens=3, logprobs=2, echo=True).choices[0]
    assert said.text.startswith("The sky is")
    assert len(said.logprobs.tokens) == len(said.logprobs.token_logprobs) > 3
    assert said.logprobs.token_logprobs[0] is None
