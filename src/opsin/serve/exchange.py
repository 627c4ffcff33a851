"""One request and its response, for routes that read top-down: parse, prompt, generate, write.

A client that goes away, the end of its time and the end of the server cut a route short wherever it stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from opsin.serve.body import Body, gone
from opsin.serve.errors import HttpError, ending, heard
from opsin.serve.framing import Framing
from opsin.serve.options import Options
from opsin.serve.record import Record
from opsin.serve.wire import Wire

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events
]


class Exchange:
    """A request, and what is sent for it. For the event loop's thread; `async with` it while somebody waits.

    Attributes:
        started: when somebody began to wait, in seconds of `time.perf_counter`.
        ping_seconds: after so long a silence a comment is sent, and begins the response; 0 for never.
        framing: of its protocol.
        tenant: whose request it is.
        begun: whether a stream was begun: an error is an event then.
    """

    def __init__(self, request: Request, send: Send, options: Options, ended: asyncio.Event) -> None:
        self.request, self.body, self.ping_seconds = request, Body.of(request), 0.0
        self.started, self.framing = time.perf_counter(), Framing.of(request.scope)
        self._record, self._wire = Record.of(request.scope), Wire.of(request.scope)
        self.tenant = self._record.tenant
        self._send, self._options, self._ended = send, options, ended
        self._loop = asyncio.get_running_loop()
        self._sending, self._sent_at, self.begun = asyncio.Lock(), self._loop.time(), False
        self._cut: Callable[[], HttpError] | None = None  # makes an error: one kept here would hold its frames
        self._watches: list[asyncio.Future[None] | asyncio.TimerHandle] = []

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sent_at, self.started = self._loop.time(), time.perf_counter()
        self._watches = [
            self._loop.call_later(self._options.seconds, self._cut_short, task, self._late),
            asyncio.ensure_future(self._watch_client(task)),
            asyncio.ensure_future(self._watch_server(task)),
        ]
        if self.ping_seconds and self.framing.ping:
            self._watches.append(asyncio.ensure_future(self._ping()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises HttpError in place of a cancellation that is ours."""
        self._unwatch()
        task = asyncio.current_task()
        if self._cut is not None and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._cut() from None

    def _unwatch(self) -> None:
        for watch in self._watches:
            watch.cancel()

    async def value(self, value: object) -> None:
        """A whole response of JSON."""
        await self.respond(JSONResponse(value))

    async def respond(self, response: Response) -> None:
        """A whole response."""
        self._unwatch()
        await response(self.request.scope, self.request.receive, self._send)

    async def event(self, value: Mapping[str, Any]) -> None:
        """A value of a stream, which begins with the first."""
        await self.write(self.framing.frame(value))

    @property
    def is_open(self) -> bool:
        """Whether a part of the stream can be written without waiting: it has begun, and its client reads."""
        return self.begun and self._wire is not None and self._wire.is_open and not self._sending.locked()

    def write_now(self, data: bytes) -> None:
        """Values of a stream that is open, as bytes. No layer between here and the connection would look at them."""
        if data and self._wire is not None:
            self._sent_at = self._loop.time()
            self._record.bytes_out += len(data)
            self._wire.write(data)

    async def write(self, data: bytes) -> None:
        """Values of a stream as bytes."""
        if self.is_open:
            self.write_now(data)
            return
        async with self._sending:
            await self._write(data)

    async def end(self, *, marked: bool = False) -> None:
        """The end of a stream."""
        async with self._sending:
            if marked:
                await self._write(self.framing.done)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: Exception) -> None:
        """What those hear who have read a part already."""
        await self.event(self.framing.error(heard(error)))
        await self.end()

    async def _write(self, data: bytes) -> None:
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", self.framing.media_type.encode()), *_HEADERS]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._sent_at = self._loop.time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _ping(self) -> None:
        """Proxies cut silent connections."""
        while True:
            await asyncio.sleep(self._sent_at + self.ping_seconds - self._loop.time())
            async with self._sending:
                if self._loop.time() >= self._sent_at + self.ping_seconds:
                    await self._write(self.framing.ping)

    async def _watch_client(self, task: asyncio.Task[Any]) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self._cut_short(task, gone)

    async def _watch_server(self, task: asyncio.Task[Any]) -> None:
        await self._ended.wait()
        if self.begun:  # else the middleware answers
            self._cut_short(task, ending)

    def _late(self) -> HttpError:
        return HttpError(504, f"the answer took more than {self._options.seconds:g} s")

    def _cut_short(self, task: asyncio.Task[Any], why: Callable[[], HttpError]) -> None:
        if self._cut is None:
            self._cut = why
            task.cancel()


class AnswerRoute:
    """An endpoint that writes its own response.

    `handler` is a method of one of the classes of routes, `held` what it works within: the model is in memory.
    """

    def __init__(
        self, handler: Callable[[Exchange], Awaitable[None]], options: Options, ended: asyncio.Event,
        held: Callable[[Body], AbstractAsyncContextManager[None]],
    ) -> None:  # fmt: skip
        self._handler, self._options, self._ended, self.__doc__ = handler, options, ended, handler.__doc__
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(Request(scope, receive, send), send, self._options, self._ended)
        try:
            async with self._held(exchange.body):
                await self._handler(exchange)
        except Exception as error:
            if not exchange.begun:
                raise
            await exchange.fail(error)
