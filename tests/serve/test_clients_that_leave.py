"""Clients that go away, at every stage: their places and pages return, and nothing is complained of."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from running_server import running
from test_chat import LIVELY, MESSAGES
from test_serve_pictures import model, part, user  # noqa: F401 - a fixture
from waiting import PATIENCE, slow, wait_for

from opsin.api.fetching import AT_ONCE
from opsin.media.fetch import FetchRules

LONG = {"messages": MESSAGES, "max_tokens": 400, "ignore_eos": True}


def is_empty(server, asked):
    engine = asked.engine
    return not engine._everybody() and server.service.active == 0


def pages_are_whole(asked):
    def look():
        pool = asked.engine.pool
        pool.check()
        return pool.free == pool.count

    return asked.engine.call(look)


def send(server, data):
    made = socket.create_connection((server.host, server.port), timeout=PATIENCE)
    made.sendall(data)
    return made


def request(body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_leaving_at_any_byte_leaves_nothing_behind(server, text_model, complaints):
    whole = request(LONG)
    for length in (0, 1, 30, whole.index(b"\r\n\r\n"), whole.index(b"\r\n\r\n") + 4, len(whole) - 1, len(whole)):
        send(server, whole[:length]).close()
    wait_for(lambda: is_empty(server, text_model))
    assert pages_are_whole(text_model)
    assert server.chat(messages=MESSAGES, max_tokens=1).status == 200
    assert not complaints


@pytest.mark.parametrize("body", [{**LONG}, {**LONG, "n": 4}, {**LONG, "stream": True, "n": 4}])
def test_leaving_at_once_or_in_the_middle_frees_all_choices(server, text_model, body, complaints):
    for pause in (0.0, 0.05, 0.2):
        connection = send(server, request(body))
        time.sleep(pause)
        connection.close()
    wait_for(lambda: is_empty(server, text_model))
    assert pages_are_whole(text_model)
    assert not complaints


def test_leaving_before_the_first_text_of_a_stream_is_noticed(server, text_model, monkeypatch):
    """A queue that is full of others' answers keeps a stream waiting; nobody waits for it any more."""
    slow(text_model.runner, monkeypatch)  # so the others last for 48 seconds at least
    others = [send(server, request({**LONG, "max_tokens": 480})) for _ in range(8)]
    wait_for(lambda: len(text_model.engine._everybody()) == 8)
    early = set(map(id, text_model.engine._everybody()))
    late = send(server, request({**LONG, "stream": True}))
    wait_for(lambda: len(text_model.engine._everybody()) == 9)
    late.close()
    wait_for(lambda: len(text_model.engine._everybody()) <= 8 and server.service.active <= 8)
    assert set(map(id, text_model.engine._everybody())) == early
    for other in others:
        other.close()
    wait_for(lambda: is_empty(server, text_model))
    assert pages_are_whole(text_model)


def test_pictures_that_come_slowly_are_given_up_when_their_client_leaves(model, complaints):  # noqa: F811
    there, asked = threading.Event(), []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            there.wait(PATIENCE)
            self.send_error(404)

        def log_message(self, *_):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    content = user(*[part(f"http://127.0.0.1:{web.server_port}/{n}.png") for n in range(3 * AT_ONCE)])
    with running(lambda: model, requests=2) as server:
        connections = []
        for path in ("/v1/chat/completions", "/v1/chat/completions/input_tokens"):
            body = request({"messages": content}).replace(b"/v1/chat/completions", path.encode())
            connections.append(send(server, body))
        wait_for(lambda: len(asked) == 2 * AT_ONCE)
        assert server.service.active == 2
        assert server.chat(messages=MESSAGES, max_tokens=1).status == 503
        for connection in connections:
            connection.close()
        wait_for(lambda: is_empty(server, model))  # although the other server is as silent as before
        wait_for(lambda: not any(thread.name.startswith("opsin-fetch") for thread in threading.enumerate()))
        assert server.chat(messages=MESSAGES, max_tokens=1).status == 200
    assert len(asked) == 2 * AT_ONCE  # the other pictures were not fetched any more
    assert not complaints
    there.set()
    web.shutdown()
    web.server_close()


def test_time_runs_while_pictures_come(model):  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as silent:
        content = user(part(f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"))
        rules = FetchRules(allow_private=True, read_seconds=PATIENCE, total_seconds=PATIENCE)
        with running(lambda: model, seconds=0.3, media=rules) as server:
            assert server.chat(messages=content).status == 504
            silent.close()
            wait_for(lambda: server.service.active == 0)


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(text_model, monkeypatch, complaints):
    from opsin.api import Answer

    before, count, inside = Answer.next_piece, [0], "a secret of the inside"

    def fail(self, **how):
        count[0] += 1
        if count[0] > 10:
            raise KeyError(inside)
        return before(self, **how)

    monkeypatch.setattr(Answer, "next_piece", fail)
    with running(lambda: text_model) as server:
        reply = server.chat(messages=MESSAGES, **LIVELY, ignore_eos=True, stream=True, n=2)
        assert reply.events[-1]["error"]["code"] == 500
        assert b"secret" not in reply.body and b"[DONE]" not in reply.body
        told = "".join(complaints)
        assert "KeyError" in told and "secret" not in told and told.count("Traceback") == 1
        wait_for(lambda: is_empty(server, text_model))
        assert pages_are_whole(text_model)


@pytest.mark.parametrize("stream", [False, True])
def test_a_defect_is_told_to_the_log_and_not_to_the_client(text_model, monkeypatch, complaints, stream):
    inside = "a secret of the inside"

    def fail(*_, **__):
        raise RuntimeError(inside)

    monkeypatch.setattr(text_model, "generate", fail)
    with running(lambda: text_model) as server:
        reply = server.chat(messages=MESSAGES, stream=stream)
        assert (reply.status, reply.json["error"]["type"]) == (500, "server_error")
        assert b"secret" not in reply.body
        wait_for(lambda: "RuntimeError" in "".join(complaints))
        told = "".join(complaints)
        assert told.count("Traceback (most") == 1 and "in fail" in told and "secret" not in told
        wait_for(lambda: server.service.active == 0)
