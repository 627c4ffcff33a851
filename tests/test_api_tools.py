"""Functions as tools: declared by their signatures, told to the template, refused where they cannot be called."""

from __future__ import annotations

from typing import Literal

import pytest
from scripted import scripted
from tiny import tiny_llama

import opsin
from opsin.api.reply_reader import ToolCall
from opsin.api.tools import Tools, declared, name_of
from opsin.errors import RequestError

SOURCE = (
    "{{ note }}{% for tool in tools or [] %}<|im_start|>tool\n{{ tool.function.name }}<|im_end|>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}"
)


def look(place: str, sharp: bool = False, colours: list[str] | None = None, kind: Literal["a", "b"] = "a", rest=None):
    """Look at a place.

    More of it.

    Args:
        place: where to look
        sharp (bool): whether to look twice
    """


def test_a_function_is_declared_by_its_signature_and_its_docstring():
    assert declared(look) == {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look at a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "where to look"},
                    "sharp": {"type": "boolean", "description": "whether to look twice"},
                    "colours": {"type": "array", "items": {"type": "string"}},
                    "kind": {"enum": ["a", "b"]},
                    "rest": {},
                },
                "required": ["place"],
            },
        },
    }


def test_those_that_may_be_called():
    other = {"type": "function", "function": {"name": "other"}}
    tools = Tools.of([look, other], "other")
    assert (tools.mode, tools.names, [name_of(tool) for tool in tools.callable]) == ("required", ("other",), ["other"])
    assert [name_of(tool) for tool in Tools.of([look, other]).callable] == ["look", "other"]
    assert Tools.of([look], "none").callable == ()


@pytest.mark.parametrize(
    ("tools", "choice", "word"),
    [
        (look, "auto", "tools"),
        ([5], "auto", "tools[0]"),
        ([look, {"name": "look"}], "auto", "tools[1]"),
        ([{"type": "function", "function": {"name": "a b"}}], "auto", "tools[0]"),
        ([lambda *rest: 0], "auto", "rest"),
        ([look], "hear", "tool_choice"),
        ([], "required", "tool_choice"),
    ],
)
def test_what_cannot_be_called_is_refused(tools, choice, word):
    with pytest.raises(RequestError) as caught:
        Tools.of(tools, choice)
    assert word in str(caught.value)


def test_arguments_are_read():
    assert ToolCall("1", "look", '{"a": [1]}').read() == {"a": [1]}
    assert ToolCall("1", "look").read() == {}
    for wrong in ('{"a": ', "[1]", "x"):
        with pytest.raises(RequestError, match="look"):
            ToolCall("1", "look", wrong).read()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_llama(tmp_path_factory.mktemp("tools") / "t.gguf", metadata={"tokenizer.chat_template": SOURCE})
    with opsin.load(path, threads=1, context=512, sequences=2) as made:
        yield made


def test_the_template_is_told(model):
    plain = model.chat("hi", max_tokens=0).prompt_tokens
    assert model.chat("hi", max_tokens=0, tools=[look]).prompt_tokens > plain
    assert model.chat("hi", max_tokens=0, variables={"note": "something"}).prompt_tokens > plain
    assert model.chat("hi", max_tokens=0, think=False).prompt_tokens > plain


def test_thoughts_have_a_length(model):
    with scripted(model, "<think>Well</think>So."):
        answer = model.chat("hi", temperature=0, thought_tokens=2)
        assert (answer.thoughts, answer.text) == ("We", "ll</think>So.")
    for wrong in (-1, True, "5"):
        with pytest.raises(RequestError, match="thought_tokens"):
            model.chat("hi", thought_tokens=wrong)
    with pytest.raises(RequestError, match="messages"):
        model.chat("hi", variables={"messages": []})
