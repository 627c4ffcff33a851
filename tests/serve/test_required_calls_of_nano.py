"""A required call of the bundled model, whose template tells of no tools: asked by `openai`, whole and streamed."""

from __future__ import annotations

import json

import pytest
from running_server import running

import opsin
from opsin.hub.bundled import bundled

PLACE = {"type": "object", "properties": {"place": {"enum": ["left", "right"]}}, "required": ["place"],
         "additionalProperties": False}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "move", "description": "Move there.", "parameters": PLACE}}]
ASK = {"model": "x", "messages": [{"role": "user", "content": "Go left."}], "tools": TOOLS, "tool_choice": "required",
       "temperature": 0, "max_tokens": 200, "parallel_tool_calls": False}  # fmt: skip


@pytest.fixture(scope="module")
def client():
    with (
        opsin.load(bundled(), threads=2, sequences=2) as model,
        running(lambda: model) as made,
        made.openai() as asking,
    ):
        yield asking


def test_it_is_called_as_its_schema_wants(client):
    choice = client.chat.completions.create(**ASK).choices[0]
    [made] = choice.message.tool_calls
    assert (made.function.name, choice.finish_reason, choice.message.content) == ("move", "tool_calls", None)
    assert json.loads(made.function.arguments)["place"] in ("left", "right")
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**ASK, stream=True)]
    parts = [part for delta in deltas for part in delta.tool_calls or []]
    assert [part.function.name for part in parts if part.function.name] == ["move"]
    assert "".join(part.function.arguments for part in parts) == made.function.arguments
