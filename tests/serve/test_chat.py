"""Conversations over HTTP: whole, streamed, many at once; what is told of them; clients that go away."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from running_server import running
from waiting import hold, wait_for

MESSAGES = [{"role": "user", "content": "the rain in Spain"}]
# A tiny random model is sure of one id: this makes its answers differ, and repeat.
LIVELY = {"seed": 5, "temperature": 9.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 24}


def test_an_answer_is_the_python_answer(server, text_model):
    whole = server.chat(messages=MESSAGES, **LIVELY).json
    expected = text_model.chat(MESSAGES, **LIVELY)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    assert whole["choices"][0]["finish_reason"] == {"stop": "stop", "length": "length"}[expected.reason]
    usage = whole["usage"]
    assert usage["prompt_tokens"] == len(text_model.chat_prompt(MESSAGES))
    assert usage["completion_tokens"] == len(expected.ids)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (whole["object"], whole["model"]) == ("chat.completion", "tiny")


def test_a_stream_says_the_same_in_pieces(server):
    whole = server.chat(messages=MESSAGES, **LIVELY).json
    reply = server.chat(messages=MESSAGES, **LIVELY, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, last = reply.events
    deltas = [chunk["choices"][0] for chunk in chunks]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert "".join(d["delta"].get("content") or "" for d in deltas) == whole["choices"][0]["message"]["content"]
    assert [d["finish_reason"] for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_it_is_asked_for(server):
    assert all("usage" not in chunk for chunk in server.chat(messages=MESSAGES, **LIVELY, stream=True).events)


def test_a_stop_text_ends_the_answer_before_it(server):
    content = server.chat(messages=MESSAGES, **LIVELY).json["choices"][0]["message"]["content"]
    stop = content[5:8]
    choice = server.chat(messages=MESSAGES, **LIVELY, stop=stop).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == content[: content.index(stop)]


def test_a_seed_repeats_and_choices_differ(server):
    body = {"messages": MESSAGES, **LIVELY, "max_tokens": 16, "ignore_eos": True, "n": 3}
    first, second = (server.chat(**body).json for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 3
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    assert first["usage"]["completion_tokens"] == 48
    streamed = {0: "", 1: "", 2: ""}
    for chunk in server.chat(**body, stream=True).events:
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert list(streamed.values()) == texts


def test_log_probabilities_are_those_of_the_model(server, text_model):
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 5, "ignore_eos": True}
    whole = server.chat(**body, logprobs=True, top_logprobs=3).json["choices"][0]["logprobs"]["content"]
    prompt = [i for span in text_model.chat_prompt(MESSAGES).spans for i in span.ids]
    answer = text_model.chat(MESSAGES, temperature=0, max_tokens=5, ignore_eos=True)
    list(answer)
    logits = text_model.logits(prompt + answer.ids)[len(prompt) - 1 : -1].astype(float)
    truth = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert len(whole) == 5
    for entry, row, id in zip(whole, truth, answer.ids, strict=True):
        assert entry["logprob"] == pytest.approx(row[id], abs=1e-4)
        assert [t["logprob"] for t in entry["top_logprobs"]] == pytest.approx(sorted(row)[:-4:-1], abs=1e-4)
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
    streamed = [
        entry
        for chunk in server.chat(**body, logprobs=True, stream=True).events
        for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in whole]


def test_sixteen_at_once_answer_as_each_alone(server):
    bodies = [{"messages": [{"role": "user", "content": f"tell me {n} times"}], **LIVELY} for n in range(16)]
    alone = [server.chat(**body).json["choices"][0]["message"]["content"] for body in bodies]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda body: server.chat(**body).json, bodies))
    assert [reply["choices"][0]["message"]["content"] for reply in together] == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_pages(server, text_model, monkeypatch, stream):
    hold(text_model.runner, monkeypatch, after=9)  # the answer does not end by itself
    body = {"messages": MESSAGES, "max_tokens": 400, "ignore_eos": True, "stream": stream}
    connection = server.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    wait_for(lambda: len(text_model.engine._everybody()) == 1)
    if stream:
        connection.getresponse().read(10)
    connection.sock.shutdown(socket.SHUT_RDWR)  # the reply would keep it open
    connection.sock.close()
    wait_for(lambda: not text_model.engine._everybody() and server.service.active == 0)


def test_a_full_house_says_come_again(text_model):
    with running(lambda: text_model, requests=1) as small:
        with small.service.admit():
            reply = small.chat(messages=MESSAGES, max_tokens=1)
            assert (reply.status, reply.json["error"]["type"]) == (503, "unavailable_error")
            assert int(reply.headers["retry-after"]) > 0
        assert small.chat(messages=MESSAGES, max_tokens=1).status == 200


def test_an_answer_that_takes_too_long_ends_with_an_error(text_model):
    body = {"messages": MESSAGES, "max_tokens": 480, "ignore_eos": True, "n": 8}
    with running(lambda: text_model, seconds=0.01) as quick:
        assert quick.chat(**body).status == 504
        events = quick.chat(**body, stream=True)
        assert events.status == 504 or events.events[-1]["error"]["code"] == 504
    wait_for(lambda: not text_model.engine._everybody())


def test_counting_tokens_computes_nothing(server, text_model):
    steps = len(text_model.engine.step_seconds)
    reply = server.ask("/v1/chat/completions/input_tokens", {"messages": MESSAGES}).json
    assert reply == {"object": "response.input_tokens", "input_tokens": len(text_model.chat_prompt(MESSAGES))}
    assert len(text_model.engine.step_seconds) == steps
