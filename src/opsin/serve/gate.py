"""The gate before all routes: who asks, under which name, from which page, and how much may come.

A server on a person's own machine is reached by every page in their browser: requests from other origins and under
other names (DNS rebinding) are refused unless the operator allows them.
"""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsin.errors import OpsinError
from opsin.serve.failures import HttpError, response_of
from opsin.serve.options import LOOPBACK, Options

PUBLIC = frozenset({"/", "/health", "/v1/health"})


class Gate:
    """An ASGI layer that refuses before anything is read."""

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self.app, self.options = app, options
        self._keys = [key.encode() for key in options.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check_host(headers)
            allowed = self._check_origin(origin, headers)
            if scope["method"] == "OPTIONS" and allowed:
                await _preflight(allowed, headers)(scope, receive, send)
                return
            self._check_key(scope["path"], headers)
            self._check_length(headers)
        except OpsinError as error:
            await response_of(error)(scope, receive, send)
            return
        await self.app(scope, _Limited(receive, self.options), _with_origin(send, allowed))

    def _check_host(self, headers: Headers) -> None:
        """On loopback only loopback's names: else any web page could reach us under a name of its own."""
        if not self.options.on_loopback:
            return
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if name not in (*LOOPBACK, *self.options.hosts):
            raise HttpError(403, f"this server is not called {name!r:.80}", hint="start it with --allow-host NAME")

    def _check_origin(self, origin: str | None, headers: Headers) -> str | None:
        """The origin to allow in the response; None for requests that are not from another page."""
        if origin is None or urlsplit(origin).netloc == headers.get("host"):
            return None
        if "*" in self.options.origins or origin in self.options.origins:
            return origin
        raise HttpError(403, f"pages of {origin!r:.80} may not ask", hint="start the server with --allow-origin ORIGIN")

    def _check_key(self, path: str, headers: Headers) -> None:
        if not self._keys or path in PUBLIC:
            return
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        right = [hmac.compare_digest(given.encode("utf-8", "replace"), key) for key in self._keys]  # all, in equal time
        if not any(right):
            raise HttpError(401, "the API key is missing or wrong", hint="send Authorization: Bearer KEY")

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.options.body_bytes:
            raise _too_long(self.options)


class _Limited:
    """`receive` of a request whose body must not be longer, nor take longer, than the options say."""

    def __init__(self, receive: Receive, options: Options) -> None:
        self._receive, self._options = receive, options
        self._bytes, self._whole = 0, False
        self._until = asyncio.get_running_loop().time() + options.body_seconds

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HttpError(408, f"the body did not come within {self._options.body_seconds:g} s") from None
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._bytes > self._options.body_bytes:
            raise _too_long(self._options)
        return message


def _too_long(options: Options) -> HttpError:
    return HttpError(413, f"the body is larger than {options.body_bytes} bytes", hint="send smaller pictures")


def _preflight(origin: str, headers: Headers) -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "content-type"),
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        },
    )


def _with_origin(send: Send, origin: str | None) -> Send:
    """`send` that tells a browser which other page may read the response."""
    if origin is None:
        return send

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers.append("Vary", "Origin")
        await send(message)

    return sending
