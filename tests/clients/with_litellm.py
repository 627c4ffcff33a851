"""litellm: its OpenAI-like and its own llama-server-like ways."""

from __future__ import annotations

import json

import litellm
import pytest

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def ask(text_address):
    def ask(provider="openai", **body):
        return litellm.completion(
            f"{provider}/any",
            messages=ASKED,
            api_base=text_address,
            api_key="none",
            temperature=0,
            max_tokens=200,
            **body,
        )

    return ask


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "lm_studio", "llamafile"])
def test_its_providers(ask, provider):
    assert ask(provider).choices[0].message.content


def test_tools_and_streams(ask):
    call = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0].function
    assert call.name == "weather"
    assert isinstance(json.loads(call.arguments)["city"], str)
    chunks = list(ask(tools=[TOOL], tool_choice="required", stream=True))
    built = litellm.stream_chunk_builder(chunks, messages=ASKED)
    assert isinstance(json.loads(built.choices[0].message.tool_calls[0].function.arguments)["city"], str)


def test_schemas_and_log_probabilities(ask):
    schema = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    said = ask(response_format=form, logprobs=True, top_logprobs=2)
    assert isinstance(json.loads(said.choices[0].message.content)["x"], int)
    assert said.choices[0].logprobs["content"]
