"""The door of several replicas: lets requests in, finds their keys, and hands each on to the replica that knows most.

It has no model. Where a replica is lost before anything of its answer was sent, the request is asked again, once; where
something was sent, the stream ends with an error event. What lives in one process alone is refused here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from opsin.api import Model
from opsin.errors import BusyError, OpsinError
from opsin.serve.app import application, described_of
from opsin.serve.body import Body
from opsin.serve.errors import HttpError, heard
from opsin.serve.framing import Framing
from opsin.serve.key_header import key_of
from opsin.serve.openapi import Described
from opsin.serve.options import Options
from opsin.serve.registry import spellings
from opsin.serve.replica import Begun, Relayed
from opsin.serve.route_key import HEADER
from opsin.serve.server_state import ServerState
from opsin.serve.service import Service
from opsin.serve.several import model_in

_TRIES: Final = 2
_EVENTS: Final = (b"text/event-stream", b"application/x-ndjson")  # bodies that an error can be added to
# What one replica keeps, and the next one has not.
_KEPT: Final = ("/v1/files", "/slots", "/v1/responses/", "/models/load", "/models/unload")
_COUNTS: Final = "/v1/responses/input_tokens"
_WHY: Final = "a server of several replicas keeps nothing between requests"
_HINT: Final = "send pictures and conversations whole, or serve with one process"


class LostError(Exception):
    """Whoever was asked is there no more, or never was."""


class Ask(Protocol):
    """Asks a replica that suits a key, and a model's name where there are several.

    Raises LostError, and BusyError where none has room.
    """

    def __call__(self, asked: Relayed, body: bytes, key: str, model: str) -> AsyncGenerator[Begun | bytes, None]: ...


def build_front(
    options: Options, ask: Ask, state: ServerState | None = None, *, models: Mapping[str, str] | None = None
) -> Starlette:
    """The application of a front. `models`: of several the names, as `Served.names` has them."""
    state = ServerState(options) if state is None else state

    async def live(request: Request) -> Response:
        """Whether this front lives; /readyz and /health are its replicas' affair."""
        return JSONResponse({"status": "ok"})

    known = Service(options, _no_model)  # to learn its routes
    paths = [one.route.path for one in described_of(known)]
    known.shut()
    own = [Described(Route("/livez", live, methods=["GET"]))]
    return application(own, state, Route("/{path:path}", Relay(ask, models or {})), declared=["/metrics", *paths])


def _no_model() -> Model:
    raise AssertionError("a front has no model")


class Relay:
    """An ASGI endpoint behind all that stands before routes."""

    def __init__(self, ask: Ask, models: Mapping[str, str]) -> None:
        self._ask, self._models = ask, models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(_KEPT) and path != _COUNTS:
            raise HttpError(501, f"{path}: {_WHY}", hint=_HINT)
        body, headers = Body.of(Request(scope, receive)), Headers(scope=scope)
        data = bytes(await body.read())
        kind = headers.get("content-type", "")
        key = headers.get(HEADER) or (await key_of(data, kind) if data else "")
        model = self._model(scope, data, kind) if self._models else ""
        asked = Relayed.of(scope)
        for rest in reversed(range(_TRIES)):
            answer = _Answer(send, Framing.of(scope), key)
            try:
                await answer.relay(self._ask(asked, data, key, model))
                return
            except LostError:
                if answer.ended:
                    return
                if answer.begun:
                    await answer.fail()
                    return
                if not rest:
                    raise BusyError("its replica was lost, and another one, too", hint="ask again") from None

    def _model(self, scope: Scope, data: bytes, content_type: str) -> str:
        """Which one a request names; "" where there is none, or it cannot be read: the replica says so."""
        try:
            said = str(model_in(data, content_type) or Request(scope).query_params.get("model"))
        except OpsinError:
            return ""
        return next((self._models[one] for one in spellings(said) if one in self._models), "")


class _Answer:
    """One try to get an answer, on its way to a client."""

    def __init__(self, send: Send, framing: Framing, key: str) -> None:
        self._send, self._framing, self._key = send, framing, key
        self.begun, self.ended, self._streams = False, False, False

    async def relay(self, parts: AsyncGenerator[Begun | bytes, None]) -> None:
        """Send all of it: what is whole at once, although the replica has yet to say that it is done.

        Who leaves early closes `parts`, so that nothing is computed for nobody.
        """
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Begun):
                    await self._begin(part)
                else:
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
        if not self.begun:
            raise LostError
        if not self.ended:
            await self._end(b"")

    async def _end(self, data: bytes) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def _begin(self, part: Begun) -> None:
        headers = list(part.headers)
        kinds = [value for name, value in headers if name.lower() == b"content-type"]
        self.begun, self._streams = True, any(kind.startswith(_EVENTS) for kind in kinds)
        if self._key:
            headers.append((HEADER.lower().encode(), self._key.encode()))
        await self._send({"type": "http.response.start", "status": part.status, "headers": headers})
        if part.whole:
            await self._end(part.body)
        elif part.body:
            await self._send({"type": "http.response.body", "body": part.body, "more_body": True})

    async def fail(self) -> None:
        """The replica is lost in the middle. A body of JSON stays cut: its connection is closed."""
        if not self._streams:
            raise ConnectionError("a replica was lost in the middle of an answer")
        lost: OpsinError = HttpError(503, "the replica that answered was lost", hint="ask again")
        event = self._framing.frame(self._framing.error(heard(lost)))
        await self._end(event)
