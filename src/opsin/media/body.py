"""The body of a response, read strictly. Knows no addresses and no seconds.

Python's own reader takes a length of "1_0", chunks of "-5" and whatever stands behind one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING

from opsin.errors import RequestError

if TYPE_CHECKING:
    from opsin.media.fetch import FetchRules

PIECE_BYTES = 1 << 16
_MOST_LINE = 4096
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n]*)?\r\n")


class BodyError(HTTPException):
    """A body that is none; `strerror` says why, as that of an OSError."""

    def __init__(self, strerror: str) -> None:
        super().__init__(strerror)
        self.strerror = strerror


def read_body(response: HTTPResponse, rules: FetchRules, came: Callable[[int], None]) -> bytes:
    """All of it. Raises BodyError for what is no body, RequestError where it is too long or ends too early."""
    coding = ", ".join(response.headers.get_all("Transfer-Encoding", [])).strip().lower()
    if coding not in ("", "identity", "chunked"):
        raise BodyError(f"sent as {coding!a:.40}, which nobody asked for")
    stated = _length(response) if coding != "chunked" else None
    rules.check_bytes(stated or 0)
    pieces = _plain(response.fp, stated) if coding != "chunked" else _chunks(response.fp, rules)
    data = bytearray()
    for piece in pieces:
        if not piece:
            of = "" if stated is None else f" of {stated}"
            raise RequestError(f"it ended after {len(data)}{of} bytes, before its end", hint="try again")
        data += piece
        came(len(piece))
        rules.check_bytes(len(data))
    return bytes(data)


def _length(response: HTTPResponse) -> int | None:
    """Bytes of a body that comes whole; None where it ends with the connection."""
    said = sorted(set(response.headers.get_all("Content-Length", [])))
    if not said:
        return None
    if len(said) > 1 or not _LENGTH.fullmatch(said[0]):
        raise BodyError("a length of " + " and ".join(f"{value!a:.40}" for value in said[:2]))
    return int(said[0])


def _plain(stream: io.BufferedReader, length: int | None) -> Iterator[bytes]:
    """So many bytes, or all; an empty piece where they end before."""
    if length is None:
        while piece := stream.read(PIECE_BYTES):
            yield piece
        return
    while length:
        piece = stream.read(min(length, PIECE_BYTES))
        length -= len(piece)
        yield piece


def _chunks(stream: io.BufferedReader, rules: FetchRules) -> Iterator[bytes]:
    """The bytes of all chunks; an empty piece where they end before. Trailers are left unread."""
    while True:
        line = stream.readline(_MOST_LINE)
        if not line.endswith(b"\n") and len(line) < _MOST_LINE:
            yield b""
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise BodyError(f"a chunk of {line[:32].strip()!a} bytes")
        size = int(found[1], 16)
        if not size:
            return
        rules.check_bytes(size)
        yield from _plain(stream, size)
        if (end := stream.read(2)) != b"\r\n":
            if len(end) < 2:
                yield b""
            raise BodyError("a chunk without an end")
