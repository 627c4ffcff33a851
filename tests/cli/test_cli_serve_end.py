"""The end of a server: who waits gets an answer, or hears that there will be none. Real processes, real signals."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from contextlib import contextmanager, suppress

import pytest
from test_cli_serve import greeting, start
from tiny import tiny_llama
from waiting import PATIENCE, wait_for

LONG = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True, "n": 4}
SIGNALS = [(signal.SIGTERM, -15), (signal.SIGINT, 130)]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A model whose answers may take minutes."""
    path = tmp_path_factory.mktemp("lasting") / "model.gguf"
    return tiny_llama(path, metadata={"llama.context_length": 1 << 16})


@contextmanager
def serving(model, *options):
    """A process of it, and its port."""
    with start("-m", model, "-c", 1 << 16, *options) as process:
        try:
            url, _ = greeting(process)
            yield process, int(url.rpartition(":")[2])
        finally:
            process.kill()


@pytest.fixture
def ask():
    """A connection that has sent a request."""
    made = []

    def send(port, path="/v1/chat/completions", **body):
        made.append(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE))
        made[-1].request("POST", path, json.dumps(body))
        return made[-1]

    yield send
    for connection in made:
        connection.close()


def metric(port, name):
    """What the server counts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(f"opsin_{name} "))


@pytest.mark.parametrize(("told", "code"), SIGNALS)
def test_whoever_waits_longer_than_the_drain_hears_that_the_server_ends(ask, lasting, told, code):
    with serving(lasting, "--drain-seconds", 1) as (process, port):
        stream = ask(port, **LONG, stream=True, sse_ping_interval=-1).getresponse()
        assert stream.status == 200 and stream.readline().startswith(b"data: {")
        whole = [ask(port, **LONG), ask(port, "/completion", prompt="hi", ignore_eos=True)]
        native = ask(port, "/completion", prompt="hi", ignore_eos=True, stream=True).getresponse()
        wait_for(lambda: metric(port, "requests_inside") == 10)
        process.send_signal(told)
        for connection in whole:
            reply = connection.getresponse()
            error = json.loads(reply.read())["error"]
            assert (reply.status, error["type"], error["code"]) == (503, "unavailable_error", 503)
            assert reply.headers["Retry-After"]
        for response in (stream, native):
            *_, last = response.read().strip().split(b"\n\n")  # raises where the last chunk does not come
            assert json.loads(last[6:])["error"]["type"] == "unavailable_error"
        assert process.wait(PATIENCE) == code
        said = process.stderr.read()
        assert "Traceback" not in said and len(said.splitlines()) == 1, said


@pytest.mark.parametrize(("told", "code"), SIGNALS)
def test_answers_that_end_within_the_drain_are_whole_and_nobody_new_gets_in(ask, lasting, told, code):
    with serving(lasting, "--drain-seconds", 600) as (process, port):
        short = {**LONG, "max_tokens": 400}
        stream = ask(port, **short, stream=True).getresponse()
        whole = ask(port, **short)
        wait_for(lambda: metric(port, "requests_total") == 2)
        idle = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        process.send_signal(told)
        with idle, suppress(ConnectionResetError):
            assert idle.recv(1) == b""  # closed without a word
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", port)).close()
        reply = whole.getresponse()
        assert reply.status == 200
        assert [c["finish_reason"] for c in json.loads(reply.read())["choices"]] == ["length"] * 4
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert process.wait(PATIENCE) == code


def test_a_second_interrupt_ends_at_once(ask, lasting):
    with serving(lasting, "--drain-seconds", 600) as (process, port):
        whole = ask(port, **LONG)
        wait_for(lambda: metric(port, "requests_inside") == 4)
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again ends at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        with suppress(ConnectionError, http.client.HTTPException):
            assert whole.getresponse().status == 503


def test_a_body_that_is_still_coming_hears_of_the_end_too(ask, lasting):
    with serving(lasting, "--drain-seconds", 0) as (process, port), socket.socket() as slow:
        slow.connect(("127.0.0.1", port))
        slow.settimeout(PATIENCE)
        slow.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        wait = ask(port, **LONG, stream=True)  # its answer comes behind the half body
        wait.getresponse()
        process.send_signal(signal.SIGTERM)
        assert slow.recv(20).startswith(b"HTTP/1.1 503")
        assert process.wait(PATIENCE) == -15


def test_a_server_that_nobody_asks_ends_without_a_word(lasting):
    with serving(lasting) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -15
        assert process.stderr.read() == ""
