"""The short way of a stream's parts to their client."""

from __future__ import annotations

from asyncio import WriteTransport
from typing import ClassVar

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl


class Wire:
    """Writes parts of a response that was begun, in chunks (RFC 9112, 7.1), as `send` would. For the event loop.

    Between a route and its connection stand layers of ours, Starlette's, uvicorn's and h11's. All of them look at the
    beginning of a response and at its end. What stands between is passed on, which for a token of an answer takes
    longer than to make it.
    """

    PLACE: ClassVar[str] = "opsin.wire"  # in a request's scope

    def __init__(self, transport: WriteTransport, flow: FlowControl) -> None:
        self._transport, self._flow = transport, flow

    @staticmethod
    def of(scope: Scope) -> Wire | None:
        """That of a request's connection; None of other servers, and where nothing comes in chunks."""
        found: Wire | None = scope.get(Wire.PLACE)
        return found

    @property
    def is_open(self) -> bool:
        """Whether parts can be written. Where a client is slow or gone, `send` knows what to do."""
        return not (self._flow.write_paused or self._transport.is_closing())

    def write(self, data: bytes) -> None:
        """A part, which is not empty: such a chunk would be the last."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
