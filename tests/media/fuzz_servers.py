"""Picture servers that lie: responses of odd statuses, headers, lengths and chunks, made from a seed.

Each must end as its bytes or as a RequestError of a 4xx that begins with the picture's name.
"""

from __future__ import annotations

import random
import socket

from scripted_server import ScriptedServer
from waiting import PATIENCE

from opsin.errors import RequestError
from opsin.media.fetch import FetchRules, fetch

BODY = bytes(range(256)) * 8
MOST_BYTES = 4096
STATUSES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 200",
    b"HTTP/0.9 200 OK",
    b"HTTP/2 200",
    b"HTTP/1.1 2_00 x",
]
STATUSES += [
    b"HTTP/1.1 -200 x",
    b"HTTP/1.1 99999 x",
    b"HTTP/1.1 \xb2\xb0\xb0 x",
    b"HTTP/1.1",
    b"",
    b"\0",
    b"ICY 200 OK",
]
STATUSES += [
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 204 None",
    b"HTTP/1.1 304 Same",
    b"HTTP/1.1 404 \x1b[2J",
    b"HTTP/1.1 600 x",
]
STATUSES += [b"HTTP/1.1 302 Found", b"HTTP/1.1 301 Moved"] * 3
HEADERS = [
    b"Content-Type: image/png",
    b"Content-Type: \xff\xfe; charset=nobody",
    b"Content-Type: text/html",
    b"X",
    b": x",
]
HEADERS += [
    b"Content-Type: multipart/mixed; boundary=" + b"x" * 70,
    b"X: " + b"y" * 70_000,
    b"X: a\r\n b\r\n\tc",
    b"\0: \0",
]
HEADERS += [b"Content-Type: =?nobody?b?////?=", b"Content-Encoding: gzip", b"Content-Encoding: \xe9", b"X: y\r" * 300]
HEADERS += [
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: keep-alive",
    b"X: y\r\n" * 150,
]
LENGTHS = [
    b"%d" % len(BODY),
    b"0",
    b"-5",
    b"+7",
    b"1_0",
    b"0x10",
    b"9" * 30,
    b"9" * 6000,
    b"12, 12",
    b"",
    b"\xb2",
    b"7.0",
]
SIZES = [
    b"%x" % len(BODY),
    b"-5",
    b"+5",
    b"1_0",
    b"0x5",
    b"0X",
    b"",
    b" 5",
    b"5 ",
    b"f" * 15,
    b"f" * 200,
    b"\xb2",
    b"zz",
]
SIZES += [b"5;a=b", b"5;" + b"x" * 70_000, b"%x;\xff" % len(BODY), b"0", b"-0", b"-ffffffffffffffff", b"\0005", b"5\0"]
PLACES = [
    b"/",
    b"",
    b" / ",
    b"http://a@b/",
    b"//",
    b"http://",
    b"http://[::1",
    b"http://[v1.x]/",
    b"http://\xff/",
    b"file:///x",
]
PLACES += [
    b"http://127.0.0.1:99999/",
    b"http://127.0.0.1:-1/",
    b"http://127.0.0.1:1_0/",
    b"\\\\10.0.0.1\\x",
    b"?\x80\x9f",
    b"#",
]
PLACES += [b"http://x\xbd.example:y/", b"http://secret:word\xbd@b/", b"http://" + b"a." * 200, b"http://..", b"data:,x"]
PLACES += [
    b"http://xn--\xe4/",
    b"https://127.0.0.1:1/",
    b"http://0/",
    b"/" + b"a" * 9000,
    b"http:///",
    b":",
    b"http://%31/",
]


def respond(dice: random.Random) -> bytes:
    """One response, mostly wrong in a few ways."""
    lines = [dice.choice(STATUSES) if dice.random() < 0.4 else STATUSES[0]]
    lines += [dice.choice(HEADERS) for _ in range(dice.choice((0, 0, 1, 1, 2, 5)))]
    if dice.random() < 0.4:
        lines.append(b"Content-Length: " + dice.choice(LENGTHS))
    if lines[0].split()[1:2] in ([b"302"], [b"301"]):
        lines.append(b"Location: " + dice.choice(PLACES))
    body = BODY[: dice.choice((0, 5, len(BODY)))]
    if dice.random() < 0.5:
        lines.append(b"Transfer-Encoding: " + dice.choice((b"chunked", b"chunked", b"Chunked", b" chunked ")))
        body = b"".join(_chunk(dice) for _ in range(dice.choice((1, 1, 2, 3)))) + dice.choice(
            (b"", b"0\r\n\r\n", b"0\r\n")
        )
    data = dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")).join([*lines, b"", b""]) + body
    return data[: dice.randrange(len(data) + 1)] if dice.random() < 0.15 else data


def _chunk(dice: random.Random) -> bytes:
    size = dice.choice(SIZES)
    body = BODY if size == SIZES[0] else BODY[: dice.choice((0, 5, 5, 16))]
    return (
        size + dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"")) + body + dice.choice((b"\r\n", b"\r\n", b"", b"xx"))
    )


def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """Nobody but this machine is ever asked."""
    return [(socket.AF_INET, "127.0.0.1")] if host == "127.0.0.1" else []


RULES = FetchRules(bytes=MOST_BYTES, allow_private=True, resolve=resolve,
              connect_seconds=PATIENCE, read_seconds=PATIENCE, total_seconds=PATIENCE)  # fmt: skip


def examine(server: ScriptedServer, answer: bytes) -> str:
    """Fetch it. Gives the outcome."""
    url = server.add("/", answer)
    try:
        data = fetch(url, RULES, name="picture 7")
    except RequestError as error:
        assert 400 <= error.status < 500 and error.hint, error
        assert error.message.startswith("picture 7: ") and error.message.isprintable(), ascii(error.message)
        assert len(error.message) < 500 and "word" not in error.message.replace("password", ""), error.message
        return "refused"
    assert len(data) <= MOST_BYTES
    return "read"
