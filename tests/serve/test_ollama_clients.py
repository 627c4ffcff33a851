"""Ollama's chats and generations through its own client, unmodified; and what it wants to know of models."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager

import ollama
import pytest
from running_server import calling_model, running
from scripted import scripted
from test_serve_pictures import data_url, part, picture, text, user
from test_tools import SPECIALS, TEMPLATE, TOOL, call

import opsin
from opsin.serve.anthropic import translate
from opsin.serve.ollama import translate_chat

ASK = {"model": "x", "messages": [{"role": "user", "content": "weather?"}]}
REPLY = "<think>\nLook?\n</think>\n\nI look.\n" + call() + "\n" + call("noon", "{}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with calling_model(tmp_path_factory.mktemp("calling"), TEMPLATE, SPECIALS) as made:
        yield made


@pytest.fixture(scope="module")
def server(model):
    with running(lambda: model) as made:
        yield made


@contextmanager
def client_of(server):
    client = ollama.Client(host=server.url)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as made:
        yield made


@pytest.fixture(scope="module")
def seeing(sight):
    with client_of(sight) as made:
        yield made


def whole(client, **fields):
    return client.chat(**{**ASK, **fields})


def streamed(client, **fields):
    """The pieces of a stream as one answer."""
    *pieces, last = client.chat(**{**ASK, **fields}, stream=True)
    assert not any(piece.done for piece in pieces)
    said = [piece.message for piece in [*pieces, last]]
    last.message.content = "".join(message.content for message in said)
    last.message.thinking = "".join(message.thinking or "" for message in said) or None
    last.message.tool_calls = [one for message in said for one in message.tool_calls or []] or None
    return last


@pytest.mark.parametrize("read", [whole, streamed])
def test_thoughts_text_and_calls_stand_apart(model, client, read):
    with scripted(model, REPLY):
        answer = read(client, tools=[TOOL, {"type": "function", "function": {"name": "noon"}}])
    assert (answer.message.content, answer.message.thinking) == ("I look.", "Look?")
    called = [(one.function.name, one.function.arguments) for one in answer.message.tool_calls]
    assert called == [("weather", {"city": "Björk<b>", "days": 3}), ("noon", {})]
    assert (answer.done, answer.done_reason, answer.message.role) == (True, "stop", "assistant")
    assert answer.eval_count == len(model.tokenize(REPLY, special=True))
    assert min(answer.total_duration, answer.eval_duration, answer.prompt_eval_count) > 0


@pytest.mark.parametrize("read", [whole, streamed])
def test_options_are_llama_servers_of_the_same_name(server, client, read):
    options = {"temperature": 1.5, "seed": 3, "top_k": 30.0, "num_predict": 9, "num_ctx": 4096, "mirostat": 0}
    same = server.chat(messages=ASK["messages"], temperature=1.5, seed=3, top_k=30, max_tokens=9).json
    answer = read(client, options=options)
    assert answer.message.content == same["choices"][0]["message"]["content"]
    assert (answer.eval_count, answer.done_reason) == (9, "length")


@pytest.mark.parametrize("read", [whole, streamed])
def test_an_answer_obeys_a_schema(client, read):
    assert json.loads(read(client, format={"enum": ["one", "two"]}).message.content) in ("one", "two")
    cut = read(client, format="json", options={"num_predict": 40, "seed": 1})
    assert cut.message.content.lstrip().startswith("{")


def test_a_conversation_is_that_of_openais_words(server, client):
    function = {"name": "weather", "arguments": {"city": "Ur"}}
    theirs = [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "I look.", "thinking": "Look?", "tool_calls": [{"function": function}]},
        {"role": "tool", "tool_name": "weather", "content": "wet"},
        {"role": "User", "content": "And now?"},
    ]
    ours = [
        *theirs[:2],
        {
            "role": "assistant", "content": "I look.", "reasoning_content": "Look?",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "name": "weather", "content": "wet"},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    asked = {"temperature": 1, "seed": 4}
    same = server.chat(messages=ours, **asked, max_tokens=12).json
    answer = whole(client, messages=theirs, options={**asked, "num_predict": 12})
    assert answer.message.content == same["choices"][0]["message"]["content"]
    assert answer.prompt_eval_count == same["usage"]["prompt_tokens"]


def test_a_picture_is_seen_as_through_openais_words(sight, seeing):
    data, client = picture(1), seeing
    ours = user(part(data_url(data)), text("what?"))
    counted = sight.ask("/v1/chat/completions/input_tokens", {"messages": ours}).json["input_tokens"]
    options = {"num_predict": 1}
    asked = client.chat("x", [{"role": "user", "content": "what?", "images": [data]}], options=options)
    made = client.generate("x", "what?", images=[base64.b64encode(data).decode()], options=options)
    assert asked.prompt_eval_count == made.prompt_eval_count == counted


def test_a_generation_is_a_chat_of_one_message(server, client):
    options = {"temperature": 1, "seed": 4, "num_predict": 12}
    messages = [{"role": "system", "content": "Be."}, {"role": "user", "content": "weather?"}]
    wanted = client.chat("x", messages, options=options).message.content
    assert client.generate("x", "weather?", system="Be.", options=options).response == wanted
    pieces = client.generate("x", "weather?", system="Be.", options=options, stream=True)
    assert "".join(piece.response for piece in pieces) == wanted


def test_a_raw_prompt_is_read_as_it_stands(server, client):
    options = {"temperature": 1, "seed": 4, "num_predict": 12}
    raw = client.generate("x", "one <think> two", raw=True, options=options)
    same = server.ask("/completion", {"prompt": "one <think> two", "temperature": 1, "seed": 4, "n_predict": 12}).json
    assert (raw.response, raw.prompt_eval_count) == (same["content"], same["tokens_evaluated"])


def test_log_probabilities_come_beside_their_tokens(server):
    body = {**ASK, "stream": False, "logprobs": True, "top_logprobs": 2, "options": {"num_predict": 4}}
    told = server.ask("/api/chat", body).json["logprobs"]
    assert len(told) == 4
    assert all(len(one["top_logprobs"]) == 2 and one["logprob"] <= 0 for one in told)


def test_who_says_nothing_only_loads(client):
    assert client.chat("x", []).done_reason == "load"
    assert client.generate("x", keep_alive=0).done_reason == "load"


def test_what_there_is(server, client, model):
    (listed,) = client.list().models
    assert listed.model == server.service.name
    assert (listed.size, listed.details.family) == (model.facts.bytes, "llama")
    (loaded,) = client.ps().models
    assert loaded.expires_at.year > 2200
    shown = client.show(listed.model)
    assert shown.modelinfo["llama.context_length"] == model.trained_context
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert server.ask("/api/version").json["version"] == opsin.__version__


def test_a_model_that_sees_says_so(seeing):
    assert "vision" in seeing.show("x").capabilities


WRONG = {
    "no form": ("/api/chat", {"format": "yaml"}, "format"),
    "an option of a wrong type": ("/api/chat", {"options": {"top_k": "5"}}, "options.top_k"),
    "a damaged picture": (
        "/api/chat",
        {"messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]},
        "messages[0].images[0]",
    ),
    "a context of ids": ("/api/generate", {"prompt": "x", "context": [1, 2]}, "context"),
    "a raw prompt with pictures": ("/api/generate", {"prompt": "x", "raw": True, "images": ["AAAA"]}, "images"),
    "a template": ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_text_that_begins_with_its_path(sight, name):
    path, fields, named = WRONG[name]
    reply = sight.ask(path, {**ASK, **fields})
    assert reply.status == 400
    assert list(reply.json) == ["error"]
    assert reply.json["error"].startswith(f"{named}: ")


def test_a_stream_is_lines_and_nothing_fills_its_silence(model):
    with running(lambda: model, ping_seconds=0.01) as pinging, scripted(model, "word " * 50):
        reply = pinging.ask("/api/chat", {**ASK, "options": {"num_predict": 40}})
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = reply.body.decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_results_answer_calls_of_their_tool_in_order():
    def called(*names):
        return {"role": "assistant", "tool_calls": [{"function": {"name": name}} for name in names]}

    results = [{"role": "tool", "content": "x", **({"tool_name": name} if name else {})} for name in "bab"] + [
        {"role": "tool", "content": "x"}, {"role": "tool", "content": "x", "tool_name": "c"},
    ]  # fmt: skip
    told = translate_chat({"messages": [called("a", "b"), called("b", "a"), *results]}).body["messages"]
    assert [message.get("tool_call_id") for message in told[2:]] == [
        "call_0_1",
        "call_0_0",
        "call_1_0",
        "call_1_1",
        None,
    ]


def test_many_messages_cost_as_much_as_they_are():
    """Each as much as in few: 40,000 take thousandths of what their square would."""
    calls = [{"role": "assistant", "tool_calls": [{"function": {"name": "a"}}]}] * 20_000
    told = translate_chat({"messages": [*calls, *[{"role": "tool", "tool_name": "a", "content": "x"}] * 20_000]})
    assert told.body["messages"][-1]["tool_call_id"] == "call_19999_0"
    thoughts = [{"type": "thinking", "thinking": "x" * 100}] * 100_000
    said = translate({"messages": [{"role": "assistant", "content": thoughts}]}).body["messages"]
    assert len(said[0]["reasoning_content"]) == 10_000_000
