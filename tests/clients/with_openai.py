"""openai for Python: schemas, `.parse()`, tools, several answers, log-probabilities, streams, responses and files."""

from __future__ import annotations

import base64
import io
import json
from typing import Annotated

import openai
import pytest
from PIL import Image
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


RESPONSE = {"model": "any", "input": ASKED[0]["content"], "temperature": 0, "max_output_tokens": 200}
RESPONSE_TOOL = {"type": "function", **TOOL["function"], "strict": False}


def test_responses_are_whole_streamed_and_gone_on_with(client):
    whole = client.responses.create(**RESPONSE)
    assert whole.status in ("completed", "incomplete") and whole.output_text
    with client.responses.stream(**RESPONSE) as stream:
        events = list(stream)
    kinds, last = [event.type for event in events], events[-1]
    assert kinds[0] == "response.created" and "response.output_text.delta" in kinds
    assert last.type == f"response.{whole.status}" and last.response.output_text == whole.output_text
    after = client.responses.create(**{**RESPONSE, "input": "And how old?"}, previous_response_id=whole.id)
    assert after.previous_response_id == whole.id and after.usage.input_tokens > whole.usage.input_tokens
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    client.responses.delete(whole.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(whole.id)


def test_responses_are_parsed_and_call_tools(client):
    assert isinstance(client.responses.parse(**RESPONSE, text_format=Person).output_parsed, Person)
    said = client.responses.create(**RESPONSE, tools=[RESPONSE_TOOL], tool_choice="required")
    call = next(item for item in said.output if item.type == "function_call")
    assert call.name == "weather" and isinstance(json.loads(call.arguments)["city"], str)
    told = [{"role": "user", "content": RESPONSE["input"]}, call,
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]  # fmt: skip
    after = client.responses.create(**{**RESPONSE, "input": told, "max_output_tokens": 10}, tools=[RESPONSE_TOOL])
    assert after.output


def test_a_picture_is_sent_once_and_asked_about_by_id(sight_address):
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "PNG")
    with openai.OpenAI(base_url=sight_address, api_key="none", max_retries=0) as client:
        stored = client.files.create(file=("red.png", data.getvalue()), purpose="vision")
        content = [{"type": "input_image", "file_id": stored.id, "detail": "auto"},
                   {"type": "input_text", "text": "What is it?"}]  # fmt: skip
        asked = {"model": "any", "input": [{"role": "user", "content": content}], "max_output_tokens": 10}
        assert client.responses.create(**asked).output_text
        assert stored.id in [file.id for file in client.files.list()]
        assert client.files.delete(stored.id).deleted
