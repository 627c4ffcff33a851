"""pydantic-ai: output types as tools, natively and in the prompt; tools."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@pytest.fixture
def model(text_address):
    return OpenAIChatModel("any", provider=OpenAIProvider(base_url=text_address, api_key="none"))


@pytest.mark.parametrize("form", [Person, ToolOutput(Person), NativeOutput(Person)], ids=["plain", "tool", "native"])
def test_output_types(model, form):
    agent = Agent(model, output_type=form, model_settings={"temperature": 0, "max_tokens": 200})
    assert isinstance(agent.run_sync("Ann is 30 years old. Who is it?").output, Person)


def test_plain_text_and_tools(model):
    agent = Agent(model, model_settings={"temperature": 0, "max_tokens": 60})
    assert agent.run_sync("Say hello.").output
    tools = Agent(model, tools=[_weather], model_settings={"temperature": 0, "max_tokens": 60})
    assert tools.run_sync("Say hello.").output


def _weather(city: str) -> str:
    """What the weather is in a city."""
    return f"rain in {city}"
