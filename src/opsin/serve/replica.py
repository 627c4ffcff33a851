"""One of several servers of the same: answers what a front hands on, and says how it fares.

It checks no keys, names or origins: its front did, and nobody else reaches it. Nothing here knows what carries a
request from there to here; `ray.py` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.types import ASGIApp, Message, Scope

from opsin.serve.factory import Served, app_of
from opsin.serve.forwarded import Proxies
from opsin.serve.options import Options
from opsin.serve.record import Record
from opsin.serve.service import Service

_STUCK_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Relayed:
    """A request as a front hands it on, without its body.

    Attributes:
        path: below the server's prefix. query: as it came.
        headers: all of them, their names in small letters.
        id, key, tenant: as `Record` has them.
    """

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: tuple[str, int] | None
    id: str
    key: str = ""
    tenant: str = ""

    @classmethod
    def of(cls, scope: Scope) -> Relayed:
        """A request that a front has let in."""
        record = Record.of(scope)
        client = scope.get("client")
        return cls(
            scope["method"], scope["path"], scope.get("query_string", b""), tuple(map(tuple, scope["headers"])),
            None if client is None else tuple(client), record.id, record.key, record.tenant,
        )  # fmt: skip

    def scope(self) -> dict[str, Any]:
        """The same as an ASGI server gives it."""
        identified = [(name, value) for name, value in self.headers if name != b"x-request-id"]
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "scheme": "http", "server": None, "root_path": "", "client": self.client,
            "method": self.method, "path": self.path, "raw_path": self.path.encode(), "query_string": self.query,
            "headers": [*identified, (b"x-request-id", self.id.encode())],
            Record.ASKED_BY: (self.key, self.tenant),
        }  # fmt: skip


@dataclass(frozen=True)
class Begun:
    """The beginning of a response, with what of its body came at once; `whole` where that is all of it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    whole: bool


class Replica:
    """A model or several, and their answers. For one event loop's thread.

    Args:
        name: told in each answer's X-Opsin-Replica.
    """

    def __init__(self, served: Served, name: str = "") -> None:
        self.service = served.service(inner)
        self._app: ASGIApp = app_of(self.service)
        self._name = name.encode()
        self._working: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Raises what loading raises."""
        await self.service.start()

    async def ask(self, asked: Relayed, body: bytes) -> AsyncIterator[Begun | bytes]:
        """A response: its beginning, and the parts of its body. Who closes this early has gone away."""
        told: asyncio.Queue[Message | None] = asyncio.Queue()
        gone = asyncio.Event()
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            told.put_nowait(message)

        working = asyncio.ensure_future(self._work(asked.scope(), receive, send))
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        working.add_done_callback(lambda _: told.put_nowait(None))
        begun: Message | None = None
        try:
            while (message := await told.get()) is not None:
                if message["type"] == "http.response.start":
                    begun = message
                    continue
                data = bytes(message.get("body", b""))
                if begun is not None:
                    headers = (*map(tuple, begun["headers"]), (b"x-opsin-replica", self._name))
                    yield Begun(begun["status"], headers, data, not message.get("more_body", False))
                    begun = None
                elif data:
                    yield data
            await working
        finally:
            gone.set()

    async def _work(self, scope: Scope, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def check(self) -> None:
        """Raises DeviceError where it must be started anew."""
        self.service.check(_STUCK_SECONDS)

    def figures(self) -> dict[str, float]:
        """What autoscaling and metrics read: rows that wait, answers inside, and pictures encoded by now."""
        all_models = [self.service] if isinstance(self.service, Service) else list(self.service)
        known = [figures for one in all_models if (figures := one.figures()) is not None]
        return {
            "rows_waiting": float(sum(figures.rows_waiting for figures in known)),
            "pictures_encoded": float(sum(figures.pictures_encoded for figures in known)),
            "pages_used": float(sum(figures.pages for figures in known)),
            "requests_inside": float(self.service.active),
        }

    async def close(self) -> None:
        """Running answers have a while, then all memory is given back."""
        await self.service.drain(self.service.options.drain_seconds)
        await self.service.close()


def inner(options: Options) -> Options:
    """Of a replica: without what its front has done already."""
    return replace(
        options, host="0.0.0.0", port=0, tls=None, prefix="", proxies=Proxies(), keys=(), hosts=("*",), origins=("*",),
        access_log="", traces="", tells_key=False,
    )  # fmt: skip
