"""Connections that are slow, half open, too many, or speak nonsense."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import suppress
from http.client import HTTPException

import pytest
from running_server import running
from waiting import PATIENCE, wait_for

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


def dial(server):
    made = socket.create_connection((server.host, server.port), timeout=PATIENCE)
    made.settimeout(PATIENCE)
    return made


def said(connection):
    """All that comes until the server closes."""
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def exchange(server, data):
    with dial(server) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return said(connection)


def is_well(server):
    return server.ask("/v1/chat/completions", BODY).status == 200


def may_be_well(server):
    """Whether it is, where a head has so little time that a busy machine may send it too late."""
    try:
        return is_well(server)
    except (OSError, HTTPException):
        return False


def test_a_head_that_does_not_come_is_a_408(text_model):
    with running(lambda: text_model, head_seconds=0.3) as quick, dial(quick) as silent, dial(quick) as slow:
        with suppress(ConnectionError):  # it may be closed between the look and the byte
            slow.sendall(b"GET /health HTTP/1.1\r\n")
            while not select.select([slow], [], [], 0.02)[0]:  # bytes now and then buy no time
                slow.sendall(b"A: b\r\n")
        for connection in (silent, slow):
            assert said(connection).startswith(b"HTTP/1.1 408")
        wait_for(lambda: may_be_well(quick))


def test_a_head_after_an_answer_has_its_time_too(text_model):
    with running(lambda: text_model, head_seconds=1.0) as quick, dial(quick) as kept:
        for pause in (1.2, 0.0):
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reply = b""
            while not reply.endswith(b"}"):
                reply += kept.recv(1000)
            assert reply.startswith(b"HTTP/1.1 200")
            time.sleep(pause)
        kept.sendall(b"GET /health")
        assert said(kept).startswith(b"HTTP/1.1 408")


def test_a_flood_of_half_open_connections_shuts_nobody_out(text_model):
    with running(lambda: text_model, requests=1) as small:
        most = small.service.options.connections
        flood = [dial(small) for _ in range(most + 20)]
        for connection in flood[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert is_well(small)
        first = said(flood[0])
        assert first == b"" or b" 503 " in first.splitlines()[0]
        for connection in flood:
            connection.close()
        assert is_well(small)


def test_where_all_connections_work_a_new_one_hears_503(text_model, monkeypatch):
    from opsin.serve.options import Options

    monkeypatch.setattr(Options, "connections", 2)
    with running(lambda: text_model) as small, dial(small) as one, dial(small) as other:
        for connection in (one, other):
            connection.sendall(POST + b"Content-Length: 50\r\n\r\n{")
        wait_for(lambda: [c.is_idle for c in small.server.server_state.connections.copy()] == [False] * 2)
        assert is_busy(small)
    with running(lambda: text_model) as small:
        assert is_well(small)


def is_busy(server):
    with dial(server) as third:
        third.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reply = third.recv(1000)
    return reply.startswith(b"HTTP/1.1 503") and b"Retry-After: " in reply


def test_a_client_that_does_not_read_is_given_up(text_model):
    with running(lambda: text_model, unread_seconds=0.3) as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect((server.host, server.port))
        many = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
        deaf.settimeout(0.2)
        with pytest.raises(OSError, match=r"timed out|reset|Broken pipe"):
            while True:
                deaf.sendall(many)
        deaf.settimeout(PATIENCE)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while True:
                time.sleep(0.05)
                deaf.sendall(many[:40])
        assert is_well(server)


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"\x00\xff\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.1\r\n\r\n", (400,)),  # no Host
        (b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: [\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: [::1\r\nOrigin: http://[::1\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\nOrigin: http://[\r\n\r\n", (403,)),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.0\r\n\r\n", (200,)),
        (b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (200,)),
        (b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (200, 404)),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404, 405)),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 200_000 + b"\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.1\r\nHost: [::1]\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n", (200,)),
        (b"GET /v1/models/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404,)),
        (b"GET /v1/models/%00%ff%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404,)),
        (b"GET /v1/models//tiny HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404,)),
        (b"GET /%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (404,)),
        (POST + b"Content-Length: -1\r\n\r\n", (400,)),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", (400, 413)),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", (400,)),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n", (400,)),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n0\r\n\r\n", (400,)),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", (400, 501)),
    ],
)  # fmt: skip
def test_strange_heads_and_bodies_are_refused_or_answered(server, data, statuses, complaints):
    with dial(server) as connection:
        connection.sendall(data)
        reply = said(connection)
    assert int(reply.split(b" ")[1]) in statuses
    assert is_well(server)
    assert not complaints


def test_two_requests_in_one_piece_are_both_answered(server):
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with dial(server) as connection:
        connection.sendall(one + one + last)
        assert said(connection).count(b"HTTP/1.1 200") == 3


def test_nonsense_behind_a_running_request_harms_nobody(server, complaints):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 100}).encode()
    with dial(server) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"\x00nonsense\r\n\r\n")
        said(connection)
    wait_for(lambda: server.service.active == 0)
    assert is_well(server)
    assert not complaints


def test_an_expectation_is_met_before_the_body(server):
    with dial(server) as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(BODY)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
