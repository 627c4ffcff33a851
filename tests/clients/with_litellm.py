"""litellm: its OpenAI-like and its own llama-server-like ways, and those of Anthropic and Ollama."""

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


@pytest.mark.parametrize("provider", ["anthropic", "ollama_chat"])
def test_other_protocols_whole_streamed_and_with_tools(text_address, provider):
    asked = {"model": f"{provider}/any", "messages": ASKED, "api_base": text_address.removesuffix("/v1"),
             "api_key": "none", "temperature": 0, "max_tokens": 200}  # fmt: skip
    whole = litellm.completion(**asked)
    assert whole.choices[0].message.content and whole.usage.prompt_tokens > 0
    pieces = list(litellm.completion(**asked, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip() == (
        whole.choices[0].message.content.strip()
    )
    if provider == "anthropic":  # Ollama has no word for a call that must be
        said = litellm.completion(**asked, tools=[TOOL], tool_choice="required").choices[0].message
        assert said.tool_calls[0].function.name == "weather"
        assert isinstance(json.loads(said.tool_calls[0].function.arguments)["city"], str)


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
