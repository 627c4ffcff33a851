"""What is kept of a request while it runs: its id, who asked, how it ended. Never what it says.

The id is the client's own where it is sane, and is in the response, in the log and in errors on stderr.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsin.serve.body import GONE
from opsin.serve.forwarded import Proxies
from opsin.serve.traces import current_id

HEADER: Final = "X-Request-ID"
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=@+-]{0,127}")


@dataclass
class Record:
    """One request.

    Attributes:
        client: its address; "" on a Unix socket.
        key: the name of the key that it came with.
        tenant: what tells that key from all others; "" where there are none.
        status: of the response; that of a client which went away where there was none.
        first, ended: seconds from its beginning to the response's first byte and to its end.
        tokens: of prompt, cache and answer, by their names.
        stages: parts of its way: a name, and begin and end by `time.perf_counter`.
        parent: the `traceparent` that it came with.
    """

    PLACE: ClassVar[str] = "opsin.record"  # in a request's scope
    ASKED_BY: ClassVar[str] = "opsin.asked_by"  # there: key and tenant, where a front has found them

    id: str
    client: str
    method: str
    path: str
    key: str = ""
    tenant: str = field(default="", repr=False)
    status: int = GONE
    bytes_in: int = 0
    bytes_out: int = 0
    first: float | None = None
    ended: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    parent: str = ""
    started: float = field(default_factory=time.perf_counter)
    at: float = field(default_factory=time.time)

    @classmethod
    def of(cls, request: Scope) -> Record:
        """The record that `RecordMiddleware` laid into a request."""
        found: Record = request[cls.PLACE]
        return found

    def since(self) -> float:
        """Seconds since its beginning."""
        return time.perf_counter() - self.started


_current: ContextVar[Record | None] = ContextVar("record", default=None)  # of the request that a task serves


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A part of the way of the request that is served."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        record = _current.get()
        if record is not None:
            record.stages.append((name, begin, time.perf_counter()))


class RecordMiddleware:
    """The outermost layer: makes the record, and hands it on when the request has ended."""

    def __init__(self, app: ASGIApp, proxies: Proxies, ended: Callable[[Record], None]) -> None:
        self._app, self._proxies, self._ended = app, proxies, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._proxies.resolve(scope)
        record = record_of(scope)
        scope[Record.PLACE] = record

        async def receiving() -> Message:
            message = await receive()
            record.bytes_in += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status, record.first = message["status"], record.since()
                MutableHeaders(scope=message)[HEADER] = record.id
                message["headers"] = [(_spelt(name), value) for name, value in message["headers"]]
            record.bytes_out += len(message.get("body", b""))
            await send(message)

        id_token, token = current_id.set(record.id), _current.set(record)
        try:
            await self._app(scope, receiving, sending)
        finally:
            current_id.reset(id_token)
            _current.reset(token)
            record.ended = record.since()
            self._ended(record)


def _spelt(name: bytes) -> bytes:
    """A header's name as most servers write it: not every client knows that case says nothing there."""
    return name if name == b"connection" else name.title()  # uvicorn looks for that one as it is


def record_of(scope: Scope) -> Record:
    """A request's record at its beginning."""
    headers = Headers(scope=scope)
    given = headers.get(HEADER, "")
    client = scope.get("client")
    key, tenant = scope.get(Record.ASKED_BY, ("", ""))
    return Record(
        id=given if _SANE.fullmatch(given) else uuid.uuid4().hex,
        client=client[0] if client else "",
        method=scope["method"],
        path=scope["path"],
        key=key,
        tenant=tenant,
        parent=headers.get("traceparent", "")[:128],
    )
