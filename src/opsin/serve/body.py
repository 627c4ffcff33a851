"""A request's body: within limits of its own, and within one that all requests share."""

from __future__ import annotations

import asyncio
from typing import Final, Generic, TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive

from opsin.api import ByteBudget
from opsin.serve.errors import HttpError
from opsin.serve.options import Options

GONE: Final = 499


T = TypeVar("T")


class Owned(Generic[T]):
    """Something large, until whoever needs it last takes it: nobody in between keeps it in memory."""

    def __init__(self, value: T) -> None:
        self._values = [value]

    def take(self) -> T:
        """It, once."""
        return self._values.pop()


class Body:
    """`receive` of a request whose body must not be longer, nor take longer, than the options say.

    `is_whole`: all of it has come.
    """

    PLACE: Final = "opsin.body"  # in a request's scope

    def __init__(self, receive: Receive, options: Options, budget: ByteBudget) -> None:
        self._receive, self._options, self._budget = receive, options, budget
        self._bytes, self.is_whole = 0, False
        self._again: bytearray | None = None
        self._until = asyncio.get_running_loop().time() + options.body_seconds

    @staticmethod
    def of(request: Request) -> Body:
        """The body that `AccessMiddleware` laid into a request."""
        found: Body = request.scope[Body.PLACE]
        return found

    async def __call__(self) -> Message:
        if self.is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HttpError(408, f"the body did not come within {self._options.body_seconds:g} s") from None
        if message["type"] != "http.request":
            return message
        count = len(message.get("body", b""))
        if self._bytes + count > self._options.body_bytes:
            raise too_long(self._options)
        self._budget.need(count)
        self._bytes += count
        self.is_whole = not message.get("more_body", False)
        return message

    async def left(self) -> None:
        """Wait until the client goes away, who has sent the whole body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def put_back(self, data: bytearray) -> None:
        """What `read` gave is wanted once more, by somebody else."""
        self._again = data

    async def read(self) -> bytearray:
        """All of it. Nothing is kept here. Raises HttpError where the client goes away before its end."""
        if self._again is not None:
            data, self._again = self._again, None
            return data
        data = bytearray()
        while not self.is_whole:
            message = await self()
            if message["type"] != "http.request":
                raise gone()
            data += message.get("body", b"")
        return data

    def let_go(self) -> None:
        """What was made of it is gone too: others may have its room."""
        self._budget.give_back(self._bytes)
        self._bytes = 0


def gone() -> HttpError:
    """What ends work that nobody waits for."""
    return HttpError(GONE, "the client went away")


def too_long(options: Options) -> HttpError:
    """What a longer body hears."""
    return HttpError(413, f"the body is larger than {options.body_bytes} bytes", hint="send smaller pictures")
