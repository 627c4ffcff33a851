"""smolagents: a model behind OpenAI's API, with tools and with a picture."""

from __future__ import annotations

import pytest
from PIL import Image
from smolagents import OpenAIServerModel, tool


@tool
def weather(city: str) -> str:
    """What the weather is in a city.

    Args:
        city: where.
    """
    return f"rain in {city}"


@pytest.fixture(scope="module")
def model(text_address):
    return OpenAIServerModel("any", api_base=text_address, api_key="none", temperature=0, max_tokens=200)


def test_it_answers_and_stops(model):
    asked = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    assert model.generate(asked, stop_sequences=["Observation:"]).content
    assert "".join(piece.content or "" for piece in model.generate_stream(asked))


def test_tools(model):
    asked = [{"role": "user", "content": [{"type": "text", "text": "What is the weather in Paris?"}]}]
    call = model.generate(asked, tools_to_call_from=[weather]).tool_calls[0]
    assert call.function.name == "weather"


def test_pictures(sight_address):
    model = OpenAIServerModel("any", api_base=sight_address, api_key="none", max_tokens=20)
    parts = [
        {"type": "text", "text": "How many circles are there?"},
        {"type": "image", "image": Image.new("RGB", (64, 64))},
    ]
    assert model.generate([{"role": "user", "content": parts}]).content


def test_forms(model):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {
        "x": {"type": "integer"}}, "required": ["x"]}}}  # fmt: skip
    asked = [{"role": "user", "content": [{"type": "text", "text": "A number?"}]}]
    assert model.generate(asked, response_format=form).content.strip().startswith("{")
