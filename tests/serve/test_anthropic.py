"""Anthropic's messages through its own client, unmodified: whole, streamed, with tools, thoughts and pictures."""

from __future__ import annotations

import base64
import json

import anthropic
import pytest
from running_server import calling_model, running
from scripted import scripted
from test_serve_pictures import data_url, part, picture, text, user
from test_tools import PARAMETERS, SPECIALS, TEMPLATE, call

from opsin.serve.keys import ApiKey

TOOLS = [{"name": "weather", "description": "Tells.", "input_schema": PARAMETERS}, {"name": "noon", "input_schema": {}}]
ASK = {"model": "x", "max_tokens": 400, "messages": [{"role": "user", "content": "weather?"}]}
REPLY = "<think>\nLook?\n</think>\n\nI look.\n" + call()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with calling_model(tmp_path_factory.mktemp("calling"), TEMPLATE, SPECIALS) as made:
        yield made


@pytest.fixture(scope="module")
def server(model):
    with running(lambda: model) as made:
        yield made


def client_of(server, **options):
    return anthropic.Anthropic(base_url=server.url, **{"api_key": "none", "max_retries": 0, **options})


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as made:
        yield made


def whole(client, **fields):
    return client.messages.create(**{**ASK, **fields})


def streamed(client, **fields):
    with client.messages.stream(**{**ASK, **fields}) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_message()
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    assert events.count("content_block_start") == events.count("content_block_stop") == len(message.content)
    return message


@pytest.mark.parametrize("read", [whole, streamed])
def test_thoughts_text_and_calls_are_blocks(model, client, read):
    with scripted(model, REPLY):
        message = read(client, tools=TOOLS)
    thought, said, called = message.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", "Look?", "")
    assert (said.type, said.text) == ("text", "I look.")
    assert (called.type, called.name) == ("tool_use", "weather")
    assert called.input == {"city": "Björk<b>", "days": 3}
    assert called.id
    assert (message.stop_reason, message.stop_sequence, message.role) == ("tool_use", None, "assistant")
    assert message.id.startswith("msg_")
    assert message.usage.output_tokens == len(model.tokenize(REPLY, special=True))


@pytest.mark.parametrize("read", [whole, streamed])
def test_why_it_ended(model, client, read):
    with scripted(model, "one two three"):
        assert read(client).stop_reason == "end_turn"
        cut = read(client, max_tokens=2)
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
        stopped = read(client, stop_sequences=["two"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "two")
    assert stopped.content[0].text == "one "


def test_tokens_of_the_cache_are_not_among_those_of_the_input(client):
    system, asked = "word " * 100, {"max_tokens": 1, "system": "word " * 100}
    first, again = whole(client, **asked).usage, whole(client, **asked).usage
    assert again.cache_read_input_tokens > 0
    assert again.input_tokens + again.cache_read_input_tokens == first.input_tokens + first.cache_read_input_tokens
    counted = client.messages.count_tokens(model="x", system=system, messages=ASK["messages"])
    assert counted.input_tokens == first.input_tokens + first.cache_read_input_tokens


CONVERSATION = [
    {"role": "user", "content": [{"type": "text", "text": "weather?", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Look?", "signature": ""},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ur"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "wet"}]},
            {"type": "text", "text": "And now?"},
        ],
    },
]


def test_a_conversation_is_that_of_openais_words(server, client):
    function = {"name": "weather", "arguments": '{"city": "Ur"}'}
    ours = [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant", "content": "I look.", "reasoning_content": "Look?",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "wet"},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": t["name"], **about, "parameters": t["input_schema"]}}
             for t in TOOLS for about in [{"description": t["description"]} if "description" in t else {}]]  # fmt: skip
    wanted = server.ask("/v1/chat/completions/input_tokens", {"messages": ours, "tools": tools}).json["input_tokens"]
    counted = client.messages.count_tokens(model="x", system="Be.", messages=CONVERSATION, tools=TOOLS)
    assert counted.input_tokens == wanted
    seed = {"temperature": 1, "seed": 4, "max_tokens": 12}
    theirs = whole(client, system="Be.", messages=CONVERSATION, tools=TOOLS, extra_body=seed, max_tokens=12)
    same = server.chat(messages=ours, tools=tools, **seed).json
    assert "".join(block.text for block in theirs.content) == (same["choices"][0]["message"]["content"] or "")


@pytest.mark.parametrize(
    ("choice", "names"), [({"type": "any"}, {"weather", "noon"}), ({"type": "tool", "name": "noon"}, {"noon"})]
)
def test_a_call_can_be_required(client, choice, names):
    message = whole(client, tools=TOOLS, tool_choice=choice, extra_body={"seed": 1})
    called = [block.name for block in message.content if block.type == "tool_use"]
    assert called or message.stop_reason == "max_tokens"
    assert set(called) <= names


def test_an_answer_obeys_a_schema(client):
    form = {"type": "json_schema", "schema": {"enum": ["one", "two"]}}
    message = whole(client, extra_body={"output_config": {"format": form}})
    assert json.loads(message.content[0].text) in ("one", "two")


def test_a_picture_is_seen_as_through_openais_words(sight):
    data = picture(1)
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]}]
    with client_of(sight) as client:
        told = client.messages.count_tokens(model="x", messages=messages).input_tokens
    ours = user(part(data_url(data)), text("what?"))
    assert told == sight.ask("/v1/chat/completions/input_tokens", {"messages": ours}).json["input_tokens"]


WRONG = {
    "no messages": ({"messages": []}, "messages"),
    "a kind of block": (
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
        "messages[0].content[0].type",
    ),
    "a picture without a file": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "messages[0].content[0].source",
    ),
    "a picture within a result": (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [
                    {"type": "text", "text": "x"},
                    {"type": "image", "source": {"type": "base64", "data": "AAAA"}}]}]},
            ]
        },
        "messages[1].content[0].content[1]",
    ),
    "a server's tool": ({"tools": [{"name": "bash", "type": "bash_20250124"}]}, "tools[0].type"),
    "a choice without tools": ({"tool_choice": {"type": "any"}}, "tool_choice"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_its_shape_and_by_its_path(client, name):
    fields, path = WRONG[name]
    with pytest.raises(anthropic.BadRequestError) as raised:
        whole(client, **fields)
    told = raised.value.body
    assert told["type"] == "error"
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"].startswith(f"{path}: ")


def test_keys_are_asked_for_in_its_shape(model):
    with running(lambda: model, keys=(ApiKey("right"),)) as guarded:
        with client_of(guarded, api_key="right") as client:
            assert whole(client, max_tokens=1).usage.output_tokens == 1
        with client_of(guarded, api_key="wrong") as client, pytest.raises(anthropic.AuthenticationError) as raised:
            whole(client)
    assert raised.value.body["error"]["type"] == "authentication_error"


def test_silence_is_filled_with_pings(model):
    with running(lambda: model, ping_seconds=0.01) as pinging, scripted(model, "word " * 100):
        body = {**ASK, "stream": True, "max_tokens": 90}
        said = pinging.ask("/v1/messages?beta=true", body).body.decode()
    frames = [frame.split("\n") for frame in said.split("\n\n") if frame]
    names = [frame[0].removeprefix("event: ") for frame in frames]
    assert names[-1] == "message_stop"
    assert set(names) - {"ping"} == {
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    }  # fmt: skip
    assert all(f'"type":"{name}"' in frame[1] for name, frame in zip(names, frames, strict=True))
