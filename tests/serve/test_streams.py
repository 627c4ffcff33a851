"""What each event of a stream tells: its own tokens with their log-probabilities, and how fast they came."""

from __future__ import annotations

import json
import socket

import pytest
from running_server import running
from test_chat import LIVELY, MESSAGES
from waiting import hold, wait_for

from opsin.serve.wire import Wire

ALWAYS = {**LIVELY, "ignore_eos": True}


def chat_pieces(server, **fields):
    """(text, log-probabilities) of each event of a conversation."""
    events = server.chat(messages=MESSAGES, stream=True, logprobs=True, **ALWAYS, **fields).events
    choices = [choice for event in events for choice in event["choices"]]
    return [(c["delta"].get("content") or "", (c["logprobs"] or {}).get("content", [])) for c in choices]


def text_pieces(server, **fields):
    body = {"prompt": "the rain", "stream": True, "logprobs": 1, **ALWAYS, **fields}
    choices = [choice for event in server.ask("/v1/completions", body).events for choice in event["choices"]]
    return [(c["text"], (c["logprobs"] or {}).get("content", [])) for c in choices]


def native_pieces(server, **fields):
    body = {"prompt": "the rain", "stream": True, "n_probs": 1, **ALWAYS, **fields}
    reply = server.ask("/completion", body).body.decode() + "data: [DONE]\n\n"
    events = type(server.ask("/health"))(200, {}, reply.encode()).events
    return [(e["content"], e.get("completion_probabilities", [])) for e in events]


@pytest.mark.parametrize("pieces", [chat_pieces, text_pieces, native_pieces])
def test_log_probabilities_stand_with_the_text_of_their_tokens(server, pieces):
    told = pieces(server)
    assert sum(len(entries) for _, entries in told) == LIVELY["max_tokens"]
    whole = [(text, b"".join(bytes(entry["bytes"]) for entry in entries)) for text, entries in told]
    ascii = [(t, d) for t, d in whole if d.isascii() and b"<|" not in d and "\ufffd" not in t]  # no half characters
    assert len(ascii) > 8
    assert all(data.decode() == text for text, data in ascii)


@pytest.mark.parametrize("pieces", [chat_pieces, text_pieces, native_pieces])
def test_tokens_of_a_stop_text_are_told_at_the_end(server, pieces):
    whole = pieces(server)
    text = "".join(text for text, _ in whole)
    told = pieces(server, stop=text[6:9])
    assert "".join(text for text, _ in told) == text[: text.index(text[6:9])]
    ids = [[entry["id"] for _, entries in some for entry in entries] for some in (whole, told)]
    assert ids[1] == ids[0][: len(ids[1])]
    assert len(ids[1]) < len(ids[0])


def test_the_first_delta_has_the_role_and_no_text_yet(server):
    first = server.chat(messages=MESSAGES, stream=True, **LIVELY).events[0]["choices"][0]
    assert first["delta"] == {"role": "assistant", "content": None}


def test_timings_stand_in_the_last_chunk_alone(server):
    for options, last in (({}, -1), ({"stream_options": {"include_usage": True}}, -1)):
        events = server.chat(messages=MESSAGES, stream=True, **LIVELY, **options).events
        assert [bool(event.get("timings")) for event in events] == [False] * (len(events) - 1) + [True]
        assert ("usage" in events[last]) == bool(options)
        assert events[last]["timings"]["predicted_n"] == LIVELY["max_tokens"]


def test_a_streamed_completion_always_ends_with_its_usage(server):
    body = {"prompt": ["the rain", "in Spain"], "stream": True, **ALWAYS}
    events = server.ask("/v1/completions", body).events
    assert ["usage" in event for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["usage"]["completion_tokens"] == 2 * LIVELY["max_tokens"]
    events = server.ask("/v1/completions", {**body, "stream_options": {"include_usage": True}}).events
    assert [event["choices"] == [] for event in events] == [False] * (len(events) - 1) + [True]
    assert ["usage" in event for event in events] == [False] * (len(events) - 1) + [True]


def test_rates_leave_out_the_first_token_whose_time_is_the_prompts(server):
    one = server.ask("/completion", {"prompt": "the rain in Spain", **ALWAYS, "max_tokens": 1}).json["timings"]
    assert (one["predicted_n"], one["predicted_per_second"], one["predicted_per_token_ms"]) == (1, 0, 0)
    many = server.ask("/completion", {"prompt": "the rain in Spain", **ALWAYS}).json["timings"]
    steps = LIVELY["max_tokens"] - 1
    assert many["predicted_per_token_ms"] == pytest.approx(many["predicted_ms"] / steps)
    assert many["predicted_per_second"] == pytest.approx(1000 * steps / many["predicted_ms"])
    assert many["prompt_per_second"] == pytest.approx(1000 * many["prompt_n"] / many["prompt_ms"])


def test_rates_are_measured_where_tokens_are_made(server, text_model):
    """Whoever reads late does not make them slower."""
    answer = text_model.chat(MESSAGES, **ALWAYS)
    pieces = []
    while (piece := answer.next_piece()) is not None:
        pieces.append(piece)
    times = [piece.at for piece in pieces]
    assert answer.times.started < answer.times.first <= times[0] <= times[-1] == answer.times.last
    assert answer.times.last == answer.times.last  # and not the moment of asking
    assert [i for piece in pieces for i in piece.ids] == answer.ids
    assert [piece.count for piece in pieces][-1] == len(answer.ids)
    assert [piece.reason for piece in pieces] == [None] * (len(pieces) - 1) + [answer.reason]


def test_a_line_break_is_told_at_the_end_of_a_stream_too(server):
    bodies = ({"prompt": "the rain", **ALWAYS, "max_tokens": 100, "seed": seed} for seed in range(20))
    whole, body = next((w, b) for b in bodies if "\n" in (w := server.ask("/completion", b).json)["content"])
    assert whole["has_new_line"] is True
    assert '"has_new_line":true' in server.ask("/completion", {**body, "stream": True}).body.decode()
    assert server.ask("/completion", {**body, "max_tokens": 1}).json["has_new_line"] is False


@pytest.mark.parametrize("choices", [1, 3])
def test_a_client_that_was_slow_gets_all_of_it(text_model, monkeypatch, choices):
    body, write, pauses = {"messages": MESSAGES, "n": choices, **ALWAYS, "max_tokens": 100}, Wire.write, []

    def spied(wire, data):
        pauses.append(wire._flow.write_paused)
        write(wire, data)

    monkeypatch.setattr(Wire, "write", spied)
    with running(lambda: text_model) as server:
        whole = [choice["message"]["content"] for choice in server.chat(**body).json["choices"]]
        let_go = hold(text_model.runner, monkeypatch, after=8)
        connection = server.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}))
        reply = connection.getresponse()
        lines = [reply.readline()]
        (one,) = [one for one in server.server.server_state.connections.copy() if not one.is_idle]
        one.loop.call_soon_threadsafe(one.pause_writing)
        wait_for(lambda: one.flow.write_paused)
        let_go.set()
        wait_for(lambda: not text_model.engine._everybody())
        one.loop.call_soon_threadsafe(one.resume_writing)
        lines += reply.read().splitlines()
        connection.close()
    told = [""] * choices
    for line in lines:
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                told[choice["index"]] += choice["delta"].get("content") or ""
    assert pauses and not any(pauses)
    assert told == whole and lines[-2:] == [b"data: [DONE]", b""]


def test_clients_of_http_1_0_have_no_chunks(server):
    body = json.dumps({"messages": MESSAGES, "stream": True, **ALWAYS}).encode()
    with socket.create_connection((server.host, server.port)) as connection:
        head = b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, events = said.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower() and events.startswith(b"data: {") and events.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: ") for line in events.split(b"\n\n") if line)
