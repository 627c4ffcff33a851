"""Tells the key of each request beside its answer, for gateways that learn from it or are told by their clients."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsin.serve.body import Body
from opsin.serve.route_key import HEADER, route_key

_SMALL: Final = 1 << 16  # bytes of a body that is read within the loop


class KeyHeaderMiddleware:
    """An ASGI layer behind `AccessMiddleware`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = Body.of(Request(scope, receive))
        data = await body.read()
        key = await key_of(data, Headers(scope=scope).get("content-type", ""))
        body.put_back(data)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and key:
                MutableHeaders(scope=message)[HEADER] = key
            await send(message)

        await self._app(scope, receive, sending)


async def key_of(data: bytes | bytearray, content_type: str) -> str:
    """The key of a body as it came; "" also for forms, and for what cannot be read. A large one is read on a thread."""
    if content_type.lower().startswith("multipart/"):
        return ""
    return await asyncio.to_thread(_key, data) if len(data) > _SMALL else _key(data)


def _key(data: bytes | bytearray) -> str:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""
    return route_key(body) if isinstance(body, dict) else ""
