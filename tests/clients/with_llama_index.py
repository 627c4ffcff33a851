"""llama-index, OpenAI-like: chats, completions, structured prediction, calls of functions."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def weather(city: str) -> str:
    """What the weather is in a city."""
    return f"rain in {city}"


@pytest.fixture(scope="module")
def model(text_address):
    shape = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 8192}
    return OpenAILike(model="any", api_base=text_address, api_key="none", temperature=0, max_tokens=200, **shape)


def test_chats_and_streams(model):
    asked = [ChatMessage(role="user", content="Say hello.")]
    assert model.chat(asked).message.content
    assert "".join(piece.delta or "" for piece in model.stream_chat(asked))


def test_completions(text_address):
    plain = OpenAILike(model="any", api_base=text_address, api_key="none", is_chat_model=False, max_tokens=20)
    assert plain.complete("Once upon a time").text


def test_structured_prediction(model):
    said = model.structured_predict(Person, PromptTemplate("Ann is 30 years old. Who is it?"))
    assert isinstance(said, Person)


def test_calls_of_functions(model):
    said = model.chat_with_tools([FunctionTool.from_defaults(weather)], "Weather in Paris?", tool_required=True)
    call = model.get_tool_calls_from_response(said)[0]
    assert call.tool_name == "weather"
    assert isinstance(call.tool_kwargs["city"], str)
