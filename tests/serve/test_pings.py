"""Streams that are silent for long: comments keep them open, and errors find their way."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from running_server import Running, running_sight
from test_chat import MESSAGES
from test_llama_server_api import PNG
from waiting import PATIENCE, wait_for

from opsin.media.fetch import FetchRules


class Slow:
    """A server of one picture, that it gives when it is told to."""

    def __init__(self) -> None:
        self.there, self.status = threading.Event(), 200
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                slow.there.wait(PATIENCE)
                self.send_response(slow.status)
                self.send_header("Content-Length", str(len(PNG)))
                self.end_headers()
                self.wfile.write(PNG)

            def log_message(self, *_):
                pass

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.web.serve_forever, daemon=True).start()

    @property
    def messages(self):
        url = f"http://127.0.0.1:{self.web.server_port}/a.png"
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.there.set()
    made.web.shutdown()
    made.web.server_close()


@pytest.fixture(scope="module")
def sight(tmp_path_factory) -> Iterator[Running]:
    open_to_all = {"rules": FetchRules(allow_private=True)}
    with running_sight(tmp_path_factory.mktemp("pings"), loading=open_to_all, ping_seconds=0.1) as made:
        yield made


@contextmanager
def ask(server: Running, **body: object) -> Iterator[http.client.HTTPResponse]:
    data = json.dumps({"max_tokens": 4, "ignore_eos": True, "stream": True, **body})
    with closing(server.connect()) as connection:
        connection.request("POST", "/v1/chat/completions", data)
        with connection.getresponse() as reply:
            yield reply


def test_comments_come_while_a_picture_does_not(sight, slow):
    with ask(sight, messages=slow.messages) as reply:
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert reply.read(6) == b":\n\n:\n\n"
        slow.there.set()
        rest = reply.read().decode()
    assert rest.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in rest.split("\n\n")[:-2] if line.startswith("data: ")]
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_an_error_after_a_comment_is_an_event(sight, slow):
    slow.status = 404
    with ask(sight, messages=slow.messages) as reply:
        assert reply.read(3) == b":\n\n"
        slow.there.set()
        *_, last = [line for line in reply.read().decode().split("\n\n") if line.startswith("data: ")]
    error = json.loads(last[6:])["error"]
    assert error["code"] == 400 and "404" in error["message"]


def test_an_error_before_the_first_comment_is_a_status(sight, slow):
    slow.status = 404
    slow.there.set()
    with ask(sight, messages=slow.messages, sse_ping_interval=300) as reply:
        assert reply.status == 400


def test_a_request_may_have_its_own_interval_or_none(sight, slow):
    threading.Timer(0.5, slow.there.set).start()
    with ask(sight, messages=slow.messages, sse_ping_interval=-1) as reply:
        assert not reply.read().startswith(b":")
    with ask(sight, messages=MESSAGES, sse_ping_interval="often") as reply:
        assert reply.status == 400


def test_openais_client_reads_past_comments(sight, slow):
    threading.Timer(0.5, slow.there.set).start()
    with sight.openai() as client:
        stream = client.chat.completions.create(model="x", messages=slow.messages, max_tokens=4, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")


def test_a_client_that_leaves_among_comments_frees_its_place(sight, slow):
    with ask(sight, messages=slow.messages) as reply:
        assert reply.read(3) == b":\n\n"
    slow.there.set()
    wait_for(lambda: sight.service.active == 0 and not sight.service.model.engine._everybody())
