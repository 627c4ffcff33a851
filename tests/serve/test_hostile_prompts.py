"""Prompts, ids and pictures that no client of ours would send to the other addresses; nothing is left of them."""

from __future__ import annotations

import base64
import json
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_server import Running, running_sight
from test_chat import MESSAGES
from test_hostile_bodies import HARDLY, MESSAGE, VALUES
from test_llama_server_api import PNG
from waiting import wait_for

from opsin.media.limits import PictureLimits

URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
PATHS = ("/completion", "/v1/completions", "/tokenize", "/detokenize", "/apply-template", "/v1/chat/completions")
IDS = st.lists(st.integers(-2, 300) | VALUES, max_size=6)
RAW = st.fixed_dictionaries({"prompt_string": VALUES, "multimodal_data": st.lists(VALUES | st.just(URL), max_size=3)})
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": VALUES | IDS | RAW | st.lists(IDS | RAW), "content": VALUES | IDS, "tokens": VALUES | IDS,
        "messages": st.lists(MESSAGE, max_size=2), "with_pieces": VALUES, "add_special": VALUES, "n_probs": VALUES,
        "stop": VALUES, "n_predict": st.integers(-3, 4) | VALUES, "sse_ping_interval": VALUES, "stream": VALUES,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    small = {"limits": PictureLimits(waiting_bytes=64 << 20)}
    with running_sight(tmp_path_factory.mktemp("hostile"), loading=small) as made:
        yield made


def nothing_is_left(server: Running) -> bool:
    model = server.service.model
    rooms = model.vision.budgets
    return server.service.active == rooms.files.used == rooms.decoded.used == 0 and not model.engine._everybody()


def image(url: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


@HARDLY
@given(path=st.sampled_from(PATHS), body=BODIES)
def test_no_body_is_a_defect(sight, path, body):
    body = {"max_tokens": 2, **body}
    reply = sight.ask(path, json.dumps(body).encode())
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        assert reply.json["error"]["message"]


@pytest.mark.parametrize("part", [{"type": "text", "text": "a"}, image(URL), image("http://127.0.0.1:9/a.png")])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.timeout(300)
def test_ten_thousand_parts_are_refused(sight, part, stream):
    reply = sight.chat(messages=[{"role": "user", "content": [part] * 10_000}], max_tokens=1, stream=stream)
    assert reply.status == 400
    wait_for(lambda: nothing_is_left(sight))


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,%%%", "data:image/png;base64," + "A" * 1001, "data:image/png;base64,====", "data:,",
        "data:", "data:image/png", "data:image/png;base64", "data:text/html;base64,PGh0bWw+",
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>", "data:image/png;base64,é",
        "javascript:alert(1)",
        "file:///etc/passwd", "/etc/passwd", "..", "", " ", "http://", "http://[", "http:///a.png", "https://a:b@c/",
        "gopher://127.0.0.1/", "http://127.0.0.1\r\nHost: x/", "http://\u2488.example/", "HTTP://LOCALHOST/",
        "http://0/", "http://[::ffff:127.0.0.1]/", "http://127.0.0.1.nip.io./", "data:image/png;base64," + "\x00" * 9,
        URL[:60], URL.replace("png", "../../x"), URL + "\x00",
    ],
)  # fmt: skip
def test_urls_that_are_none_are_refused_by_their_place(sight, url):
    reply = sight.chat(messages=[{"role": "user", "content": [image(url), image(URL)]}], max_tokens=1)
    if reply.status != 200:  # a type that lies harms nobody
        assert reply.status == 400
        assert reply.json["error"]["message"].startswith("messages[0].content[0]")
    else:
        assert url == URL.replace("png", "../../x")
    wait_for(lambda: nothing_is_left(sight))


def test_more_prompts_than_are_taken_in_wait_for_nothing(sight):
    raw = {"prompt_string": "x" * 99, "multimodal_data": [base64.b64encode(PNG).decode()] * 10_000}
    assert sight.ask("/completion", {"prompt": raw}).status == 400
    assert sight.ask("/completion", {"prompt": ["a"] * 10_000}).status == 400
    assert sight.ask("/completion", {"prompt": [[1]] * 100, "n": 16}).status == 400
    many = {"prompt": {**raw, "prompt_string": sight.ask("/props").json["media_marker"] * 10_000}}
    reply = sight.ask("/completion", many)
    assert reply.status == 400 and "picture 32 of 10000" in reply.json["error"]["message"]
    wait_for(lambda: nothing_is_left(sight))


def test_health_answers_while_a_long_text_is_spelt(sight):
    answered, text = 0, "the rain " * 120_000
    body = json.dumps({"content": text, "with_pieces": True}).encode()
    with socket.create_connection((sight.host, sight.port)) as sender:
        head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        sender.sendall(head.encode() + body)
        while not select.select([sender], [], [], 0)[0]:
            assert sight.ask("/health").status == 200
            answered += 1
        assert sender.recv(100).startswith(b"HTTP/1.1 200")
    assert answered > 5  # usually hundreds; two where it holds the interpreter


def test_the_server_is_well_afterwards(sight):
    assert sight.chat(messages=MESSAGES, max_tokens=1).status == 200
