"""langchain-ollama: answers, streams, structured output, tools and their results."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaLLM
from pydantic import BaseModel, Field


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=20)
    age: int


@tool
def weather(city: str) -> str:
    """What the weather is in a city."""
    return f"rain in {city}"


@pytest.fixture(scope="module")
def settings(text_address):
    return {"base_url": text_address.removesuffix("/v1"), "model": "any", "temperature": 0, "num_predict": 60}


@pytest.fixture(scope="module")
def model(settings):
    return ChatOllama(**settings)


def test_answers_and_streams_with_their_usage(model, settings):
    whole = model.invoke("Say hello.")
    assert whole.content and whole.usage_metadata["output_tokens"] > 0
    pieces = list(model.stream("Say hello."))
    assert "".join(piece.content for piece in pieces) == whole.content
    assert OllamaLLM(**settings).invoke("The sky is")


def test_structured_output(model):
    said = model.with_structured_output(Person, method="json_schema").invoke("Ann is 30 years old. Who is it?")
    assert isinstance(said, Person)


def test_tools_and_their_results(model):
    said = model.bind_tools([weather]).invoke("What is the weather in Paris? Use the tool.")
    assert said.content or said.tool_calls  # Ollama has no word for a call that must be
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "1", "type": "tool_call"}
    said.tool_calls = [call]
    told = [HumanMessage("weather?"), said, ToolMessage("rain", tool_call_id="1")]
    assert isinstance(model.bind_tools([weather]).invoke(told).content, str)
