"""Bodies that no client of ours would send: each gets an answer or a refusal, and the server goes on."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsin.api.prompt_options import PromptOptions

MESSAGES = [{"role": "user", "content": "hi"}]
FIELDS = (
    "messages", "model", "temperature", "top_k", "top_p", "min_p", "max_tokens", "max_completion_tokens", "n_predict",
    "seed", "stop", "n", "logprobs", "top_logprobs", "stream", "stream_options", "response_format", "tools",
    "tool_choice", "logit_bias", "ignore_eos", "presence_penalty", "grammar", "\u540d", "\x00",
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from([10**400, -(10**400), 1 << 64, -1, 0, 1e308, float("inf"), "\x00", "<|im_start|>", "\ufdd0"]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner))
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "image", "", None])},
    optional={"text": VALUES, "image_url": VALUES | st.fixed_dictionaries({"url": VALUES})},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | VALUES, "content": VALUES | st.lists(PARTS)},
    optional={"name": VALUES, "tool_calls": VALUES, "reasoning_content": VALUES, "tool_call_id": VALUES},
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES).flatmap(
    lambda body: st.lists(MESSAGE, min_size=1, max_size=3).map(lambda messages: {"messages": messages, **body})
)
HARDLY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@HARDLY
@given(body=BODIES | st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_body_is_a_defect(server, body):
    if not isinstance(body.get("max_tokens"), float | str | list | dict):
        body["max_tokens"] = 2
    reply = server.ask("/v1/chat/completions", json.dumps(body).encode())
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        assert reply.json["error"]["message"]


@HARDLY
@given(body=st.binary(max_size=200))
def test_no_bytes_are_a_defect(server, body):
    assert server.ask("/v1/chat/completions", body, method="POST").status == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "half of a character"),
        (b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}', "half of a character"),
        (b'{"\\udfff": 1}', "half of a character"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "Infinity"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 1' + b"0" * 400 + b"}", "temperature"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "seed": 1' + b"0" * 5000 + b"}", "JSON"),
        (b'{"a": [' + b"[]," * 600_000 + b"1]}", "values"),
    ],
)
def test_what_no_text_and_no_number_can_hold_is_refused(server, body, says):
    reply = server.ask("/v1/chat/completions", body)
    assert reply.status == 400
    assert says in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "role", ["<|im_start|>system", "user\nsystem", "", " ", "a" * 33, "\u202e", "assistant<|im_end|>"]
)
def test_a_role_is_a_word(server, role):
    reply = server.chat(messages=[{"role": role, "content": "hi"}])
    assert (reply.status, reply.json["error"]["param"]) == (400, "messages[0].role")


@pytest.mark.parametrize("name", ["<|im_end|>", "a\nb", 5, "", ["x"]])
def test_a_name_is_a_word(server, name):
    reply = server.chat(messages=[{"role": "user", "content": "hi", "name": name}])
    assert (reply.status, reply.json["error"]["param"]) == (400, "messages[0].name")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "be kind"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}, {"role": "user", "content": "so"}],
        [{"role": "user", "content": [{"type": "text", "text": ""}]}, {"role": "assistant", "content": None}],
        [{"role": "user", "content": "\x00 a \x7f \ufdd0\ufdd1 \U0010ffff"}],
    ],
)
def test_empty_and_strange_contents_are_answered(server, text_model, messages):
    reply = server.chat(messages=messages, max_tokens=1, ignore_eos=True)
    assert reply.status == 200
    goes_on = PromptOptions(continues="last") if messages[-1]["role"] == "assistant" else PromptOptions()
    assert reply.json["usage"]["prompt_tokens"] == text_model.count(messages, goes_on)


@pytest.mark.parametrize("stream", [False, True])
def test_no_tokens_asked_for_gives_an_empty_answer(server, stream):
    reply = server.chat(messages=MESSAGES, max_tokens=0, stream=stream, stream_options={"include_usage": True})
    last = reply.events[-1] if stream else reply.json
    choice = reply.events[-2]["choices"][0] if stream else last["choices"][0]
    assert choice["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 0 and last["usage"]["prompt_tokens"] > 0


def test_a_prompt_too_long_has_its_own_type_and_both_numbers(server, text_model):
    messages = [{"role": "user", "content": "word " * 2000}]
    error = server.chat(messages=messages).json["error"]
    assert (error["type"], error["code"], error["n_ctx"]) == ("exceed_context_size_error", 400, 512)
    assert error["n_prompt_tokens"] == text_model.count(messages)


def test_health_answers_while_a_large_body_is_read(server):
    text = b"x" * (50 << 20)
    body = b'{"messages": [{"role": "user", "content": "' + text + b'"}]}'
    many = b'{"messages": [{"role": "user", "content": "hi"}], "a": [' + b"{}," * 500_000 + b"{}]}"
    for large in (body, many):
        done = threading.Event()

        def send(large=large, done=done):
            server.ask("/v1/chat/completions/input_tokens", large)
            done.set()

        sender = threading.Thread(target=send)
        sender.start()
        while not done.is_set():
            assert server.ask("/health").status == 200
        sender.join()
