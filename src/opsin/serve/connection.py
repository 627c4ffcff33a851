"""A connection: how many there may be, and how long one may be silent in the middle of something.

uvicorn waits for a request's head without end, and for a client that does not read. Where all places are taken, the
connection that has been idle longest makes room for a new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import ClassVar, cast

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from opsin.serve.errors import COME_AGAIN_SECONDS
from opsin.serve.options import Options
from opsin.serve.wire import Wire

_BUSY = f"503 Service Unavailable\r\nRetry-After: {COME_AGAIN_SECONDS}", "unavailable_error", "too many connections"
_LATE = "408 Request Timeout", "timeout_error", "the request did not come in time"


def connections(options: Options) -> type[asyncio.Protocol]:
    """The class of a server's connections."""
    return type("Bounded", (Connection,), {"options": options})


class Connection(H11Protocol):
    """One connection of a client."""

    options: ClassVar[Options]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._idle_since = time.monotonic()
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self.app = partial(_wired, self.app, Wire(transport, self.flow))
        if len(self.connections) > self.options.connections and not self._make_room():
            self._refuse(*_BUSY)
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._unread = _stop(self._head), _stop(self._unread)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # nonsense behind a request that is being answered
            self.transport.abort()
            return
        self._watch_head()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.options.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._unread = _stop(self._unread)
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether no request of it runs or is being sent."""
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    def _watch_head(self) -> None:
        if not self.is_idle:
            self._head = _stop(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.options.head_seconds, self._late)

    def _late(self) -> None:
        self._head = None
        if self.is_idle:
            self._refuse(*_LATE)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False where there is none but this."""
        others = (cast(Connection, c) for c in self.connections if c is not self)
        idle = min((c for c in others if c.is_idle), key=lambda c: c._idle_since, default=None)
        if idle is None:
            return False
        idle._refuse(*_BUSY)
        self.connections.discard(idle)
        return True

    def _refuse(self, status: str, kind: str, message: str) -> None:
        code = int(status[:3])
        body = f'{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{code}}}}}'
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self.transport.write(f"{head}\r\nConnection: close\r\n\r\n{body}".encode())
        self.transport.close()


def _wired(app: ASGIApp, wire: Wire, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Lay the wire into a request, where a response that says no length comes in chunks."""
    if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
        scope[Wire.PLACE] = wire
    return app(scope, receive, send)


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Nothing, in place of a timer that may run."""
    if timer is not None:
        timer.cancel()
    return None
