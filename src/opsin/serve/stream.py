"""Server-sent events: values as they come, comments while nothing comes, errors where it is too late for a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from opsin.serve.body import GONE
from opsin.serve.errors import HttpError, body_of, ending, heard
from opsin.serve.running import end, first_of

T = TypeVar("T")
PING, DONE = b":\n\n", b"data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> bytes:
    """One event with JSON in it."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class Events(StreamingResponse):
    """A stream of events whose source is closed with it, however it ends."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_chain(first, rest), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.headers["X-Accel-Buffering"] = "no"  # nginx would collect events
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def respond(
    request: Request, events: AsyncGenerator[bytes, None], ping_seconds: float, ended: asyncio.Event
) -> Events:
    """A response that begins with the first event, or with the first comment where that comes earlier.

    An error before it is raised, and so an ordinary response; a later one is the last event, and so is that the server
    has `ended`.
    """
    paced = _paced(events, ping_seconds, ended)
    return Events(await unless_gone(request, anext(paced)), paced)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work; give it up when the client goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HttpError(GONE, "the client went away")
    finally:
        await end(working)
        await end(leaving)


async def _paced(
    events: AsyncGenerator[bytes, None], ping_seconds: float, ended: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """The events, and a comment after each silence of so many seconds, 0 for none: proxies cut silent connections."""
    sent, coming = False, asyncio.ensure_future(anext(events, b""))
    try:
        while True:
            await first_of(coming, ended, ping_seconds or None)
            ready = coming.done()
            try:
                if ended.is_set() and not ready:
                    raise ending()
                told = coming.result() if ready else PING
            except Exception as error:
                if not sent:
                    raise
                yield event(body_of(heard(error)))
                return
            if not told:
                return
            sent = True
            if ready:
                coming = asyncio.ensure_future(anext(events, b""))
            yield told
    finally:
        await end(coming)
        await events.aclose()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for told in rest:
        yield told
        await asyncio.sleep(0)  # where many events are ready, others have their turn, and a lost client is noticed
