"""langchain-openai: structured output in its three methods, tools, streams."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """What the weather is in a city."""
    return f"rain in {city}"


@pytest.fixture(scope="module")
def model(text_address):
    return ChatOpenAI(base_url=text_address, api_key="none", model="any", temperature=0, max_tokens=200, max_retries=0)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(model, method):
    asked = model.with_structured_output(Person, method=method, include_raw=True)
    said = asked.invoke('Answer in JSON: {"name": "Ann", "age": 30}. Ann is 30 years old. Who is it?')
    if method == "json_mode":  # any object: whether it has these keys is the model's affair
        assert said["raw"].content.strip().startswith("{")
    else:
        assert isinstance(said["parsed"], Person), said


@pytest.mark.parametrize("choice", ["any", "weather", "auto"])
def test_bound_tools(model, choice):
    said = model.bind_tools([weather], tool_choice=choice).invoke("What is the weather in Paris?")
    if choice != "auto":
        assert said.tool_calls[0]["name"] == "weather"
        assert isinstance(said.tool_calls[0]["args"]["city"], str)
        call = said.tool_calls[0]
        told = [HumanMessage("weather?"), said, ToolMessage("rain", tool_call_id=call["id"])]
        assert isinstance(model.bind_tools([weather], tool_choice="none").invoke(told).content, str)


def test_tools_streamed(model):
    whole = None
    for piece in model.bind_tools([weather], tool_choice="any").stream("What is the weather in Paris?"):
        whole = piece if whole is None else whole + piece
    assert whole.tool_calls[0]["name"] == "weather"
    assert isinstance(whole.tool_calls[0]["args"]["city"], str)


def test_streams_and_usage(model):
    pieces = list(model.stream("Say hello.", stream_usage=True))
    assert "".join(piece.content for piece in pieces)
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) > 0
