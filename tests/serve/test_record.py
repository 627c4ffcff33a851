"""Request ids and the access log: what is told of a request, and what never is."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import Running, running
from test_chat import LIVELY, MESSAGES
from waiting import wait_for

from opsin.errors import RequestError
from opsin.serve import access_log
from opsin.serve.access_log import AccessLog, line_of
from opsin.serve.forwarded import Proxies
from opsin.serve.keys import ApiKey
from opsin.serve.record import Record

SECRET, WORD = "sk-very-secret", "xylophone"
AS_BOB = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.jsonl"


@pytest.fixture(scope="module")
def logged(text_model, place) -> Iterator[Running]:
    options = {"keys": (ApiKey(SECRET, "bob"),), "access_log": str(place), "proxies": Proxies.read(["127.0.0.1"])}
    with running(lambda: text_model, **options) as made:
        yield made


def lines(place: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in place.read_text().splitlines()]


def line(place: Path, id: str) -> dict[str, object]:
    wait_for(lambda: any(one["id"] == id for one in lines(place)))
    (found,) = [one for one in lines(place) if one["id"] == id]
    return found


@pytest.mark.parametrize("id", ["a", "req-1.2:3=4@5+6_7", "A" * 128])
def test_a_sane_id_is_taken_and_comes_back(logged, id):
    assert logged.ask("/health", headers={"X-Request-ID": id}).headers["x-request-id"] == id


@pytest.mark.parametrize("id", ["", " ", "a b", "A" * 129, '"},{"', "a;b", "\u00e4", "-x", "<b>", "a\tb", "..."])
def test_another_is_replaced(logged, id):
    given = {"X-Request-ID": id.encode("latin-1")}
    assert re.fullmatch("[0-9a-f]{32}", logged.ask("/health", headers=given).headers["x-request-id"])


def test_an_id_with_a_line_break_ends_no_header(logged, place):
    with socket.create_connection((logged.host, logged.port)) as client:
        client.sendall(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\nX-Evil: 1\r\nConnection: close\r\n\r\n"
        )
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"x-evil" not in said.lower()


def test_refusals_and_errors_have_an_id_too(logged):
    for reply in (
        logged.ask("/props"),
        logged.ask("/none", headers=AS_BOB),
        logged.ask("/v1/chat/completions", b"{", headers=AS_BOB),
    ):
        assert reply.status >= 400 and reply.headers["x-request-id"]


def test_a_line_tells_who_asked_and_what_it_took_and_no_content(logged, place):
    body = {"messages": [{"role": "user", "content": WORD}], "max_tokens": 3, "ignore_eos": True}
    headers = {**AS_BOB, "X-Request-ID": "told", "X-Forwarded-For": "203.0.113.9"}
    reply = logged.ask(f"/v1/chat/completions?q={WORD}", body, headers=headers)
    found = line(place, "told")
    assert (found["client"], found["key"], found["method"], found["path"], found["status"]) == (
        "203.0.113.9", "bob", "POST", "/v1/chat/completions", 200,
    )  # fmt: skip
    assert found["generated_tokens"] == 3 and found["prompt_tokens"] == reply.json["usage"]["prompt_tokens"]
    assert found["bytes_out"] == len(reply.body) and found["bytes_in"] > len(WORD)
    assert 0 < found["first_byte_seconds"] <= found["seconds"]
    assert WORD not in place.read_text() and SECRET not in place.read_text()


def test_the_bytes_of_a_stream_are_counted(logged, place):
    body = {"messages": MESSAGES, **LIVELY, "ignore_eos": True, "stream": True}
    reply = logged.ask("/v1/chat/completions", body, headers={**AS_BOB, "X-Request-ID": "streamed"})
    assert line(place, "streamed")["bytes_out"] == len(reply.body) > 1000


def test_a_key_in_a_path_is_not_told_and_a_line_break_is_no_line(logged, place):
    logged.ask(f"/v1/{SECRET}/a%0A%7B%22id%22:%22forged%22%7D", headers={"X-Request-ID": "path"})
    assert line(place, "path")["path"] == '/v1/***/a\n{"id":"forged"}'
    assert "forged" not in [one["id"] for one in lines(place)]
    assert SECRET not in place.read_text()


def test_who_is_refused_has_a_line_without_a_key(logged, place):
    logged.ask("/props", headers={"X-Request-ID": "wrong", "Authorization": "Bearer sk-wrong"})
    found = line(place, "wrong")
    assert (found["status"], found["key"]) == (401, "") and "sk-wrong" not in place.read_text()


def test_a_client_that_goes_away_has_the_status_for_that(logged, place):
    body = json.dumps({"messages": MESSAGES, "max_tokens": 400, "ignore_eos": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: left\r\n"
    head += f"Authorization: Bearer {SECRET}\r\n"
    with socket.create_connection((logged.host, logged.port)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: logged.service.active > 0)
    assert line(place, "left")["status"] == 499


def record(**values: object) -> Record:
    return Record(**{"id": "a", "client": "", "method": "GET", "path": "/", **values})


def test_a_reader_that_takes_nothing_stops_nothing_and_is_told_what_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "_WAITING", 2)
    held, taken = threading.Event(), []

    class Slow:
        def write(self, text: str) -> None:
            held.wait()
            taken.append(text)

        def flush(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(access_log, "_opened", lambda place: Slow())
    log = AccessLog("slow")
    for _ in range(50):
        log.add(record(), "/")
    held.set()
    wait_for(log._lines.empty)
    log.add(record(), "/")
    log.close()
    assert sum(json.loads(line).get("lines_lost", 0) for line in taken) == 50 - len(taken) + 1
    assert len(taken) < 50


def test_a_path_is_cut(tmp_path):
    assert len(json.loads(line_of(record(), "/" + "x" * 9999))["path"]) == 200


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path):
    with pytest.raises(RequestError, match="cannot write the access log to"):
        AccessLog(str(tmp_path / "none" / "log"))


def test_names_of_headers_are_written_as_others_write_them(server):
    connection = server.connect()
    connection.request("GET", "/metrics")
    with connection.getresponse() as reply:
        names = [name for name, _ in reply.getheaders()]
    connection.close()
    assert {"Process-Start-Time-Unix", "Content-Length", "Content-Type", "X-Request-Id"} <= set(names)
