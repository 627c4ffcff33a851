"""Servers for `load.py`, and the clients that load them: plain HTTP on threads, and what each saw when."""

from __future__ import annotations

import base64
import http.client
import json
import selectors
import socket
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Body = Mapping[str, Any]
Event = tuple[float, dict[str, Any]]  # and the second at which it came


class LoadError(RuntimeError):
    """A server did not start, or answered something else than was asked."""


@dataclass(frozen=True)
class Server:
    """A server that runs: its name, its start line and its port."""

    name: str
    command: tuple[str, ...]
    port: int

    def ask(self, path: str, body: Body | None = None) -> dict[str, Any]:
        """One request, whole."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status != 200:
            raise LoadError(f"{self.name} {path}: {reply.status} {text[:300]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def stream(self, path: str, body: Body) -> list[Event]:
        """The events of a stream."""
        (events,) = self.streams(path, [body])
        return events

    def streams(self, path: str, bodies: Sequence[Body]) -> list[list[Event]]:
        """The events of streams that begin together.

        One thread reads them all, and looks into them when all have come: clients shall take little of the processors
        that the server computes on.
        """
        received = [Received(self._ask_for(path, body)) for body in bodies]
        with selectors.DefaultSelector() as selector:
            for one in received:
                selector.register(one.connection, selectors.EVENT_READ, one)
            while selector.get_map():
                for key, _ in selector.select():
                    if not key.data.read():
                        selector.unregister(key.fileobj)
                        key.data.connection.close()
        return [one.events(f"{self.name} {path}") for one in received]

    def _ask_for(self, path: str, body: Body) -> socket.socket:
        data = json.dumps({**body, "stream": True}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=600)
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection


@dataclass
class Received:
    """What came of a response, and when."""

    connection: socket.socket
    seconds: list[float] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)

    def read(self) -> bool:
        """More of it; False at its end."""
        piece = self.connection.recv(1 << 16)
        self.seconds.append(time.perf_counter())
        self.pieces.append(piece)
        return bool(piece)

    def events(self, asked: str) -> list[Event]:
        """Its events. Raises LoadError for what is no stream."""
        raw = b"".join(self.pieces)
        if not raw.startswith(b"HTTP/1.1 200 "):
            raise LoadError(f"{asked}: {raw[:300]!r}")
        return list(_events(raw, self.seconds, list(accumulate(map(len, self.pieces)))))


def _events(raw: bytes, seconds: Sequence[float], ends: Sequence[int]) -> Iterator[Event]:
    """Those of a response in chunks, of which so many bytes had come at these seconds."""
    place, rest = raw.index(b"\r\n\r\n") + 4, b""
    while True:
        begin = raw.index(b"\r\n", place) + 2
        end = begin + int(raw[place : begin - 2], 16)
        if end == begin:
            return
        *events, rest = (rest + raw[begin:end]).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: ") and event != b"data: [DONE]":
                yield seconds[bisect_left(ends, end)], json.loads(event[6:])
        place = end + 2


@contextmanager
def serving(name: str, command: Sequence[str], here: Path | None = None) -> Iterator[Server]:
    """A server on a free port of loopback, until it is ready; `command` is its start line without the port.

    `here`: the folder that it runs in.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    line = (*command, "--host", "127.0.0.1", "--port", str(port))
    process = subprocess.Popen(line, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(name, line, port)
    try:
        while True:
            if process.poll() is not None:
                raise LoadError(f"{name} ended with {process.returncode}: {' '.join(line)}")
            try:
                server.ask("/health")
                break
            except (OSError, LoadError):
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


def in_parallel(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each work gave, all at once on threads of their own. Raises what the first that failed raised."""
    results: list[Any] = [None] * len(works)
    errors: list[Exception] = []

    def run(place: int) -> None:
        try:
            results[place] = works[place]()
        except Exception as error:  # noqa: BLE001 - given to the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@dataclass
class Streamed:
    """When the pieces of one stream came."""

    seconds: list[float] = field(default_factory=list)

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces that follow each other."""
        return [after - before for before, after in zip(self.seconds, self.seconds[1:], strict=False)]


def watch(server: Server, bodies: Sequence[Body]) -> list[Streamed]:
    """Read streams of /completion that begin together, to their ends."""
    return [
        Streamed([second for second, event in events if event.get("content") or event.get("tokens")])
        for events in server.streams("/completion", bodies)
    ]


class Prompts:
    """Lists of random ids, none of which was there before."""

    def __init__(self, low: int, high: int) -> None:
        self.random, self.low, self.high = np.random.default_rng(7), low, high

    def take(self, tokens: int) -> list[int]:
        """One of so many tokens."""
        return [int(token) for token in self.random.integers(self.low, self.high, tokens)]


def picture(seed: int, side: int = 512) -> str:
    """A data URL of a PNG of coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


class Health:
    """Asks for /health ten times a second, each time on a connection of its own, and keeps how long it took."""

    def __init__(self, server: Server) -> None:
        self.server, self.seconds = server, [0.0]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            began = time.perf_counter()
            self.server.ask("/health")
            self.seconds.append(time.perf_counter() - began)

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
