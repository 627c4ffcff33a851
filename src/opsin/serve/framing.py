"""How a protocol sends: what frames the values of a stream, what fills its silence, and how its errors look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from opsin.errors import OpsinError
from opsin.serve.errors import HttpError, body_of, headers_of, log


def compact(value: Mapping[str, Any]) -> bytes:
    """A value as JSON in one line."""
    return msgspec.json.encode(value)


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event with a value in it."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


@dataclass(frozen=True)
class Framing:
    """Of one protocol.

    Attributes:
        frame: a value of a stream as bytes.
        error: what is told of an error, as a value; in a stream it is framed as all others.
        ping: what is sent where a stream is silent for long; empty where nothing may be.
        done: what ends a stream that is marked.
        media_type: of streams.
    """

    PLACE: ClassVar[str] = "opsin.framing"  # in a request's scope

    frame: Callable[[Mapping[str, Any]], bytes] = event
    error: Callable[[OpsinError], Mapping[str, Any]] = body_of
    ping: bytes = b":\n\n"
    done: bytes = b"data: [DONE]\n\n"
    media_type: str = "text/event-stream; charset=utf-8"

    @staticmethod
    def of(scope: Scope) -> Framing:
        """The one that `AccessMiddleware` laid into a request; OpenAI's where it laid none."""
        found: Framing = scope.get(Framing.PLACE, OPENAI)
        return found

    def response(self, error: OpsinError) -> Response:
        """An error as a response."""
        return JSONResponse(self.error(error), error.status, headers_of(error))


OPENAI: Final = Framing()


async def on_opsin_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for our errors."""
    assert isinstance(error, OpsinError)
    log(error)
    return Framing.of(request.scope).response(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for its own errors: no such route, no such method."""
    status = int(getattr(error, "status_code", 500))
    path = request.url.path
    what = {404: f"there is no {path}", 405: f"{request.method} is not for {path}"}
    hint = "ask without the slash at its end" if status == 404 and path.endswith("/") else None
    return Framing.of(request.scope).response(HttpError(status, what.get(status, str(error)), hint=hint))
