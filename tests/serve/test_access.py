"""Who may ask, how much may come, and what a wrong request hears."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from running_server import running
from waiting import PATIENCE

from opsin.serve.keys import ApiKey

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": ["text"]}]}, "messages[0].content[0]"),
        ({"messages": MESSAGES, "temperature": "hot"}, "temperature"),
        ({"messages": MESSAGES, "temperature": [1]}, "temperature"),
        ({"messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
        ({"messages": MESSAGES, "max_completion_tokens": True}, "max_completion_tokens"),
        ({"messages": MESSAGES, "n": 0}, "n"),
        ({"messages": MESSAGES, "stop": [1]}, "stop[0]"),
        ({"messages": MESSAGES, "stop": ["x"] * 65}, "stop"),
        ({"messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"messages": MESSAGES, "top_logprobs": 3}, "top_logprobs"),
        ({"messages": MESSAGES, "logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools[0].function"),
        ({"messages": MESSAGES, "logit_bias": 5}, "logit_bias"),
        ({"messages": MESSAGES, "response_format": {"type": "sound"}}, "response_format.type"),
        ({"messages": MESSAGES, "seed": "x"}, "seed"),
    ],
)
def test_a_wrong_field_is_named(server, body, field):
    reply = server.ask("/v1/chat/completions", body)
    error = reply.json["error"]
    assert (reply.status, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", field, 400)
    assert field in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":' * 5000, b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}"])
def test_what_is_no_json_object_is_a_400(server, body):
    reply = server.ask("/v1/chat/completions", body, method="POST")
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


def test_null_means_absent_and_harmless_values_ask_for_nothing(server):
    body = {
        "messages": MESSAGES, "max_tokens": 1, "temperature": None, "tools": [], "presence_penalty": 0.0,
        "logit_bias": None, "response_format": {"type": "text"}, "user": "somebody", "top_k": -1, "seed": -1,
    }  # fmt: skip
    assert server.ask("/v1/chat/completions", body).status == 200


def test_a_prompt_longer_than_the_context_is_a_400_with_both_numbers(server):
    reply = server.chat(messages=[{"role": "user", "content": "word " * 2000}])
    assert reply.status == 400
    assert "512" in reply.json["error"]["message"]


def test_what_is_not_there_is_a_404_and_a_wrong_method_a_405(server):
    assert server.ask("/v1/nothing").json["error"]["code"] == 404
    assert server.ask("/v1/chat/completions").json["error"]["code"] == 405
    assert server.ask("/v1/models/other").status == 404


def test_a_slash_behind_an_address_is_another_address(server):
    """A 307 would have the body sent again, which few clients do; llama-server answers 404, too."""
    for path in ("/v1/chat/completions/", "/health/", "/tokenize/"):
        for body in (None, {"messages": MESSAGES}):
            reply = server.ask(path, body)
            assert (reply.status, "without the slash" in reply.json["error"]["message"]) == (404, True), path
    assert server.ask("/").status == 200


def test_only_a_key_opens_but_health_and_page_are_open(text_model):
    with running(lambda: text_model, keys=(ApiKey("secret"), ApiKey("other", "bob"))) as locked:
        body = {"messages": MESSAGES, "max_tokens": 1}
        wrong = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"X-Api-Key": "s\u00e9cret"})
        for headers in wrong:
            reply = locked.ask("/v1/chat/completions", body, headers=headers)
            assert (reply.status, reply.json["error"]["type"]) == (401, "authentication_error")
        for headers in ({"Authorization": "Bearer secret"}, {"X-Api-Key": "other"}):
            assert locked.ask("/v1/chat/completions", body, headers=headers).status == 200
        assert locked.ask("/v1/models").status == 401
        assert locked.ask("/metrics").status == 401
        assert locked.ask("/health").status == 200
        assert locked.ask("/").status == 200


def test_a_long_body_is_a_413_however_it_comes(text_model):
    with running(lambda: text_model, body_bytes=1000) as small:
        assert small.ask("/v1/chat/completions", b"x" * 1001).status == 413
        pieces = b"64\r\n" + b"x" * 100 + b"\r\n"
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection((small.host, small.port)) as connection:
            connection.sendall(head + 20 * pieces + b"0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_a_408(text_model):
    with (
        running(lambda: text_model, body_seconds=0.2) as quick,
        socket.create_connection((quick.host, quick.port)) as c,
    ):
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        assert c.recv(100).startswith(b"HTTP/1.1 408")


def test_other_pages_and_other_names_are_refused_unless_allowed(text_model):
    with running(lambda: text_model, origins=("https://good.example",), hosts=("box.local",)) as made:
        here = f"{made.host}:{made.port}"
        assert made.ask("/v1/models", headers={"Origin": "https://evil.example"}).status == 403
        assert made.ask("/v1/models", headers={"Origin": f"http://{here}"}).status == 200
        good = made.ask("/v1/models", headers={"Origin": "https://good.example"})
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        before = made.ask("/v1/models", method="OPTIONS", headers={"Origin": "https://good.example"})
        assert (before.status, before.headers["access-control-allow-origin"]) == (200, "https://good.example")
        assert made.ask("/v1/models", headers={"Host": "evil.example"}).status == 403
        assert made.ask("/v1/models", headers={"Host": "box.local:80"}).status == 200
        assert made.ask("/v1/models", headers={"Host": f"localhost:{made.port}"}).status == 200


def test_health_waits_for_the_model(text_model):
    there = threading.Event()

    def load():
        there.wait(PATIENCE)
        return text_model

    with running(load, wait=False) as starting:
        for path in ("/health", "/v1/models"):
            reply = starting.ask(path)
            assert (reply.status, reply.json["error"]["type"]) == (503, "unavailable_error")
        assert starting.chat(messages=MESSAGES).status == 503
        there.set()
        while starting.ask("/health").status != 200:
            threading.Event().wait(0.01)
        assert starting.ask("/health").json == {"status": "ok"}


def test_models_and_props_say_what_it_takes(server):
    entry = server.ask("/v1/models").json["data"][0]
    assert (entry["id"], entry["object"]) == ("tiny", "model")
    assert entry["architecture"]["input_modalities"] == ["text"]
    assert server.ask("/v1/models/tiny").json == entry
    props = server.ask("/props").json
    assert props["modalities"]["vision"] is False
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert server.ask("/props").json["build_info"].startswith("b0-opsin-")


def test_metrics_count(server):
    def counts():
        lines = server.ask("/metrics").body.decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}

    before = counts()
    usage = server.chat(messages=MESSAGES, max_tokens=3, ignore_eos=True).json["usage"]
    after = counts()
    assert after["opsin_requests_total"] == before["opsin_requests_total"] + 1
    assert after["opsin_prompt_tokens_total"] == before["opsin_prompt_tokens_total"] + usage["prompt_tokens"]
    assert after["opsin_generated_tokens_total"] == before["opsin_generated_tokens_total"] + 3
    assert after["opsin_requests_inside"] == 0


def test_a_picture_for_a_model_of_text_is_a_400_with_a_hint(server):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    reply = server.chat(messages=[{"role": "user", "content": [part]}])
    assert reply.status == 400
    assert "mmproj" in reply.json["error"]["message"]


def test_json_that_python_reads_and_json_does_not_have_is_refused(server):
    body = json.dumps({"messages": MESSAGES, "temperature": float("nan")}).encode()
    assert server.ask("/v1/chat/completions", body).status == 400


def test_a_model_is_called_as_its_file_without_the_ending_and_found_with_it_too(text_model):
    file = text_model.path.name
    bare = file.removesuffix(".gguf")
    with running(lambda: text_model) as made:
        entry = made.ask("/v1/models").json["data"][0]
        assert (entry["id"], entry["aliases"]) == (bare, [bare])
        assert made.chat(messages=MESSAGES, max_tokens=1).json["model"] == bare
        assert made.ask(f"/v1/models/{bare}").json == made.ask(f"/v1/models/{file}").json == entry
        assert made.ask("/v1/models/other.gguf").status == 404
    with running(lambda: text_model, name="me") as made:
        assert made.ask("/v1/models/me").json["id"] == made.ask(f"/v1/models/{file}").json["id"] == "me"


def test_pages_of_this_machine_may_be_let_in_together(text_model):
    with running(lambda: text_model, origins=("localhost",)) as made:
        for origin, status in (("http://localhost:3000", 200), ("http://127.0.0.1:1", 200), ("http://a.example", 403)):
            assert made.ask("/v1/models", headers={"Origin": origin}).status == status
        assert made.ask("/v1/models", headers={"Origin": "http://localhost.a.example"}).status == 403
