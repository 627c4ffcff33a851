"""A server on a thread of this process, and plain requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from tiny import tiny_llama
from tiny_sight import tiny_pair
from waiting import PATIENCE

import opsin
from opsin.api import Model
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry
from opsin.serve.server import listen, uvicorn_of
from opsin.serve.service import Service


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """What a stream sent, without comments and the closing mark."""
        lines = [line for line in self.body.decode().split("\n\n") if line and not line.startswith(":")]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]" or "error" in lines[-1]
        return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


class SocketConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


@dataclass
class Running:
    service: Service | ModelRegistry
    host: str
    port: int
    server: uvicorn.Server
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        if self.service.options.is_socket:
            return SocketConnection(self.host)
        return http.client.HTTPConnection(self.host, self.port, timeout=300)

    def ask(self, path: str, body: object = None, *, method: str | None = None, headers=()) -> Reply:
        connection = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        verb = method or ("GET" if body is None else "POST")
        connection.request(verb, path, data, {**self.headers, **dict(headers)})
        reply = connection.getresponse()
        answer = Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        connection.close()
        return answer

    def openai(self):
        """OpenAI's own client of it; closed by its `with`."""
        import openai

        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)

    def chat(self, **body: object) -> Reply:
        return self.ask("/v1/chat/completions", body)


@contextmanager
def running(
    load: Callable[[], Model], *, wait: bool = True, close: bool = False, **options: object
) -> Iterator[Running]:
    """A server of `load()`'s model on a free port. The model is not closed with it, unless `close` says so."""
    settings = Options(port=0, **options)
    service = Service(settings, load)
    with live(service, settings, close=close) as made:
        while wait and not service.ready:
            threading.Event().wait(0.01)
        yield made
    service.shut()


@contextmanager
def live(service: Service | ModelRegistry, settings: Options, *, close: bool) -> Iterator[Running]:
    """A server of one model or of several, on a thread."""
    made = listen(settings)
    server = uvicorn_of(service)
    loop = asyncio.new_event_loop()

    async def whole() -> None:
        loading = asyncio.ensure_future(service.start())
        await server.serve(sockets=made)
        await loading
        if close:
            await service.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(whole()), daemon=True)
    thread.start()
    host, port = made[0].getsockname()[:2] if not settings.is_socket else (settings.host, 0)
    while not server.started:
        threading.Event().wait(0.01)
    try:
        yield Running(service, host, port, server)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def running_sight(folder: Path, *, loading: Mapping[str, object] | None = None, **options: object) -> Iterator[Running]:
    """A server of a small model that sees, made in `folder`; `loading` goes to `opsin.load`."""
    tiny_pair(folder)
    with (
        opsin.load(folder / "model.gguf", threads=2, context=512, sequences=4, **loading or {}) as model,
        running(lambda: model, **options) as made,
    ):
        yield made


@contextmanager
def calling_model(folder: Path, template: str, specials: Sequence[str]) -> Iterator[Model]:
    """A model that thinks and calls tools where a test says so (`scripted`), with this template."""
    path = tiny_llama(folder / "t.gguf", specials=specials, metadata={"tokenizer.chat_template": template})
    with opsin.load(path, threads=1, context=1024, sequences=4) as made:
        yield made
