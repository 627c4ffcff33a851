"""Whatever a picture's server sends is the picture or one clear refusal of it: never a fault of ours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import fuzz_servers as fuzz
import pytest
from scripted_server import ScriptedServer

from opsin.errors import RequestError
from opsin.media.fetch import fetch


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()


def refusal(server: ScriptedServer, answer: bytes) -> str:
    """What is said."""
    with pytest.raises(RequestError) as refused:
        fetch(server.add("/", answer), fuzz.RULES, name="picture 7")
    return refused.value.message


def chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


@pytest.mark.parametrize("size", [b"-5", b"+5", b"0x5", b"0_5", b"zz", b"", b" 5", b"\xb2", b"5\0", b"f" * 40])
def test_a_chunk_has_a_size_in_plain_hex(server: ScriptedServer, size: bytes) -> None:
    said = refusal(server, chunked(size + b"\r\nabcde\r\n0\r\n\r\n"))
    assert said.startswith("picture 7: 127.0.0.1 did not send it: a chunk of ")


def test_chunks_may_have_extensions_and_trailers(server: ScriptedServer) -> None:
    body = b"5 ;name=value\r\nhello\r\n01;x\r\n!\r\n0;last\r\nTrailer: x\r\n\r\n"
    assert fetch(server.add("/", chunked(body)), fuzz.RULES) == b"hello!"


def test_a_chunk_ends_with_its_line(server: ScriptedServer) -> None:
    assert "a chunk without an end" in refusal(server, chunked(b"5\r\nhelloxx0\r\n\r\n"))


def test_a_large_chunk_is_refused_before_it_comes(server: ScriptedServer) -> None:
    assert refusal(server, chunked(b"fffffff\r\n")).endswith("268435455 bytes, at most 4096")


@pytest.mark.parametrize("length", ["-5", "+7", "1_0", "0x10", "12, 12", "", "7.0", "9" * 5000])
def test_a_length_is_a_plain_number(server: ScriptedServer, length: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello world".encode()
    assert refusal(server, answer).startswith("picture 7: 127.0.0.1 did not send it: a length of ")


def test_two_lengths_are_none(server: ScriptedServer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello world"
    assert "a length of '5' and '9'" in refusal(server, answer)


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, chunked"])
def test_other_ways_of_sending_are_refused(server: ScriptedServer, coding: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\nhello".encode()
    assert f"sent as '{coding}'" in refusal(server, answer)


def test_a_redirect_says_nothing_that_its_server_wrote(server: ScriptedServer) -> None:
    said = refusal(server, b"HTTP/1.1 302 Found\r\nLocation: http://secret:word\xbd@b\x9b/\r\n\r\n")
    assert "not a URL that is fetched" in said and "secret" not in said and said.isprintable()


def test_six_hundred_hostile_responses_are_refused_or_read(server: ScriptedServer) -> None:
    dice = random.Random(11)
    outcomes = Counter(fuzz.examine(server, fuzz.respond(dice)) for _ in range(600))
    assert outcomes["refused"] > 300 and outcomes["read"] > 20, outcomes


def test_what_the_caller_raises_ends_it_as_it_is(server: ScriptedServer) -> None:
    def leave(count: int) -> None:
        raise RequestError("nobody waits for it any more")

    with pytest.raises(RequestError, match="nobody waits"):
        fetch(server.add_file("/x", b"hello"), fuzz.RULES, came=leave)
