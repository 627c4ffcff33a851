"""What stands before all routes: who asks, under which name, from which page, and how much may come.

A server on a person's own machine is reached by every page in their browser: requests from other origins and under
other names (DNS rebinding) are refused unless the operator allows them.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsin.api import ByteBudget
from opsin.errors import OpsinError
from opsin.serve.body import Body, too_long
from opsin.serve.errors import HttpError, ending, heard
from opsin.serve.framing import OPENAI, Framing
from opsin.serve.keys import KeyRing, KeyUse
from opsin.serve.options import Options, is_address, is_loopback
from opsin.serve.page_files import FOLDER
from opsin.serve.record import Record

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/?#@\\]*))(?::[0-9]*)?")
_LOCAL = (".local", ".localhost", ".internal", ".home.arpa", ".lan", ".home", ".corp")  # public DNS has none of these
PUBLIC = frozenset({"/", "/docs", "/openapi.json", "/health", "/v1/health", "/livez", "/readyz"})


class AccessMiddleware:
    """An ASGI layer that refuses before anything is read."""

    def __init__(
        self, app: ASGIApp, options: Options, ended: asyncio.Event, keys: KeyRing,
        framings: Mapping[str, Framing] | None = None,
    ) -> None:  # fmt: skip
        self.app, self.options, self._ended, self._framings = app, options, ended, framings or {}
        self._keys = keys
        self._hosts = {host.lower() for host in options.hosts}
        self._is_socket, self._on_loopback = options.is_socket, options.on_loopback
        self._own = socket.gethostname().lower()
        self._bodies = ByteBudget(
            max(options.all_bodies_bytes, options.body_bytes), "too many large requests are inside"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.options.prefix and scope["path"] == self.options.prefix:
            await RedirectResponse(self.options.prefix + "/")(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sending = send
        try:
            scope = self._below_prefix(scope)
            scope[Framing.PLACE] = self._framing(scope["path"])
            self._check_host(scope["path"], headers)
            origin = self._other_origin(headers)
            allowed = origin if origin is not None and self._may_ask(origin) else None
            sending = send if allowed is None else _with_origin(send, allowed)
            if scope["method"] == "OPTIONS" and origin is not None:
                await _preflight(allowed, headers)(scope, receive, send)
                return
            if origin is not None and allowed is None:
                hint = "start the server with --allow-origin ORIGIN"
                raise HttpError(403, f"pages of {origin!r:.80} may not ask", hint=hint)
            key = self._find_key(scope["path"], headers)
            self._check_body(headers)
            with ExitStack() as stack:
                if key is not None:
                    record = Record.of(scope)
                    record.key, record.tenant = key.key.name, key.tenant
                    if scope["method"] == "POST":
                        stack.enter_context(key.admit())
                await self._pass(scope, receive, sending)
        except OpsinError as error:  # `_pass` raises none
            await Framing.of(scope).response(error)(scope, receive, sending)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What fails inside ends here: further out it would be logged with all that is in its message.

        Where the server ends before a response has begun, the client hears so.
        """
        body, begun, cut = Body(receive, self.options, self._bodies), False, False
        working = asyncio.current_task()
        assert working is not None

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def watch() -> None:
            nonlocal cut
            await self._ended.wait()
            cut = not begun and working.cancel()

        watching = asyncio.ensure_future(watch())
        try:
            await self.app({**scope, Body.PLACE: body}, body, sending)
            return
        except asyncio.CancelledError:
            if not cut:
                raise
            working.uncancel()
            told: OpsinError = ending()
        except Exception as error:  # noqa: BLE001 - the client must hear of it
            told = heard(error)
        finally:
            watching.cancel()
            body.let_go()
        if not begun:  # else the connection is closed, since its response does not end
            await Framing.of(scope).response(told)(scope, receive, send)

    def _below_prefix(self, scope: Scope) -> Scope:
        """A request without the prefix that all paths have. Raises HttpError 404 where it has not."""
        prefix, path = self.options.prefix, scope["path"]
        if not prefix:
            return scope
        if not path.startswith(prefix + "/"):
            raise HttpError(404, f"there is no {path:.200}", hint=f"all paths begin with {prefix}")
        return {**scope, "path": path[len(prefix) :]}

    def _framing(self, path: str) -> Framing:
        """Of the protocol whose paths begin as this one."""
        return next((framing for begin, framing in self._framings.items() if path.startswith(begin)), OPENAI)

    def _check_host(self, path: str, headers: Headers) -> None:
        """Any web page can reach us under a name of its own that it points here (DNS rebinding), and read what we say.

        On loopback only loopback's names are ours. Elsewhere, where no key guards, those that no stranger can own:
        addresses, this machine's name, and names that public DNS has not. Who sends no name at all is no browser.
        """
        host = headers.get("host")
        if self._is_socket:
            return  # no page reaches it but through a proxy, whose affair names are
        if host is None or "*" in self._hosts or not (self._on_loopback or self._is_open(path)):
            return
        name = _name(host)
        if name in self._hosts or is_loopback(name):
            return
        if self._on_loopback or not (is_address(name) or name == self._own or _is_local(name)):
            raise HttpError(403, f"this server is not called {name!r:.80}", hint="start it with --allow-host NAME")

    def _is_open(self, path: str) -> bool:
        """Whether nothing but its name keeps others' pages from reading this."""
        return not self._keys and not _is_public(path)

    def _other_origin(self, headers: Headers) -> str | None:
        """The origin of the page that asks; None for requests that come from no page, or from one of this server."""
        origin, host = headers.get("origin"), headers.get("host", "").lower()
        return None if origin is not None and host and origin.lower().partition("://")[2] == host else origin

    def _may_ask(self, origin: str) -> bool:
        allowed = self.options.origins
        if "*" in allowed or origin in allowed:
            return True
        return "localhost" in allowed and is_loopback(urlsplit(origin).hostname or "")

    def _find_key(self, path: str, headers: Headers) -> KeyUse | None:
        """Whose key it came with; None where none is needed. llama-server's clients may leave out the word Bearer."""
        if not self._keys or _is_public(path):
            return None
        kind, _, bearer = headers.get("authorization", "").strip().partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key") or kind
        return self._keys.find(given.encode("latin-1"))

    def _check_body(self, headers: Headers) -> None:
        packed = headers.get("content-encoding", "identity")
        if packed.lower() != "identity":
            raise HttpError(415, f"bodies of the encoding {packed!r:.40} are not read", hint="send it as it is")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.options.body_bytes:
            raise too_long(self.options)


def _is_public(path: str) -> bool:
    """Whether it tells nothing of the model or of anybody."""
    return path in PUBLIC or path.startswith(FOLDER)


def _name(host: str) -> str:
    """The name in a Host header, in small letters."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise HttpError(400, f"{host!a:.80} is no name of a server")
    return (found[1] or found[2]).lower()


def _is_local(name: str) -> bool:
    """Whether no stranger can own it: a container's name has no dot, a service's ends as only local names do."""
    bare = name.removesuffix(".")
    return bool(bare) and ("." not in bare or bare.endswith(_LOCAL))


def _preflight(allowed: str | None, headers: Headers) -> Response:
    """What a browser hears that asks whether a page may ask: an origin that is not named may not."""
    if allowed is None:
        return Response(status_code=200, headers={"Vary": "Origin"})
    private = "access-control-request-private-network" in headers  # a public page asks for this machine
    return Response(
        status_code=200,
        headers={
            **({"Access-Control-Allow-Private-Network": "true"} if private else {}),
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "content-type"),
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        },
    )


def _with_origin(send: Send, origin: str) -> Send:
    """`send` that tells a browser which other page may read the response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers.append("Vary", "Origin")
        await send(message)

    return sending
