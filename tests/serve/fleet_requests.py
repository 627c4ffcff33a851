"""Requests of tests of several replicas: small pictures, each with its questions, and what is compared of answers."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

# Ids, times, and how much of a prompt was known already, which is another matter at each replica.
_CHANGING = re.compile(
    rb'"(id|created|created_at|[a-z_]+_duration|cached_tokens|cache_[a-z_]*input_tokens|input_tokens|tokens_cached|'
    rb'tokens_evaluated|cache_n)": ?("[^"]*"|\d+)|"timings": ?\{[^}]*\}'
)


def picture(number: int) -> dict[str, Any]:
    """A part with a picture of its own: 65,536 numbers are as many pictures."""
    file = io.BytesIO()
    Image.new("RGB", (24, 24), (number * 37 % 256, number * 91 % 256, (number + number // 256) * 11 % 256)).save(
        file, "png"
    )
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def look(*numbers: int, question: str = "What is it?", **more: Any) -> dict[str, Any]:
    """A question about pictures."""
    content = [*map(picture, numbers), {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0, **more}


def say(text: str, **more: Any) -> dict[str, Any]:
    """A question without a picture."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0, **more}


def lasting(body: bytes) -> bytes:
    """What an answer says, without what changes from one time to the next."""
    return _CHANGING.sub(b"", body)


class Client:
    """A connection for each request, or one that is kept until `close`."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, keep: bool = False) -> None:
        self._keep = keep
        self._connection = http.client.HTTPConnection(host, port, timeout=120)

    def ask(
        self, body: Mapping[str, Any] | None = None, path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body."""
        data = None if body is None else json.dumps(body).encode()
        verb = "GET" if body is None else "POST"
        self._connection.request(verb, path, data, {"Content-Type": "application/json", **headers})
        reply = self._connection.getresponse()
        told = {name.lower(): value for name, value in reply.getheaders()}
        said = reply.read()
        if not self._keep:
            self.close()
        return reply.status, told, said

    def begin(self, body: Mapping[str, Any], **headers: str) -> Iterator[bytes]:
        """Lines of a stream as they come; closing the iterator drops the connection."""
        self.send(body, **headers)
        yield from self.lines()

    def send(self, body: Mapping[str, Any], **headers: str) -> None:
        """A request, without waiting for a word of its answer."""
        told = {"Content-Type": "application/json", **headers}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), told)

    def lines(self) -> Iterator[bytes]:
        """What comes for it."""
        reply = self._connection.getresponse()
        try:
            while line := reply.readline():
                yield line
        finally:
            reply.close()
            self.close()

    def close(self) -> None:
        """Drop it."""
        self._connection.close()


def figure(text: bytes, name: str) -> int:
    """One number of /metrics."""
    found = re.search(rb"^opsin_%s (\S+)$" % name.encode(), text, re.MULTILINE)
    assert found is not None, name
    return int(float(found[1]))


def figures(port: int, name: str, replicas: int, host: str = "127.0.0.1") -> dict[str, int]:
    """That number of each replica: keys of all kinds lead to each of them, however loaded, and each says who it is."""
    found: dict[str, int] = {}
    client = Client(port, host)
    for number in range(40):
        status, headers, body = client.ask(path="/metrics", **{"X-Opsin-Key": f"figures {number}"})
        if status == 200:
            found[headers["x-opsin-replica"]] = figure(body, name)
        if len(found) == replicas:
            break
    return found
