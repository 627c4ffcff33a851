"""Answers that run on threads, read by an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from opsin.api import Answer
from opsin.serve.errors import HttpError

T = TypeVar("T")


@dataclass(frozen=True)
class Delta:
    """A piece of the text of one of a request's answers; `end` says that the answer is over."""

    choice: int
    text: str
    end: bool = False


async def off_loop(threads: Executor, work: Callable[[], T]) -> T:
    """Do blocking work on a thread."""
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def deltas(
    answers: list[Answer], threads: Executor, *, until: float, seconds: float
) -> AsyncGenerator[Delta, None]:
    """The pieces of several answers as they come. Whoever stops reading cancels them all.

    Raises what an answer raises, or HttpError 504 at `until` on the loop's clock, when the request has taken so many
    seconds; the others are cancelled then.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

    def tell(answer: Answer, news: Delta | BaseException) -> None:
        try:
            loop.call_soon_threadsafe(ready.put_nowait, news)
        except RuntimeError:  # the loop has ended: nobody reads
            answer.cancel()

    def read(choice: int, answer: Answer) -> None:
        try:
            for text in answer:
                tell(answer, Delta(choice, text))
            tell(answer, Delta(choice, "", end=True))
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads
            tell(answer, error)

    try:
        for choice, answer in enumerate(answers):
            threads.submit(read, choice, answer)
        left = len(answers)
        while left:
            delta = await _next(ready, until, seconds)
            if isinstance(delta, BaseException):
                raise delta
            left -= delta.end
            yield delta
    finally:
        for answer in answers:
            answer.cancel()


async def _next(ready: asyncio.Queue[T], until: float, seconds: float) -> T:
    try:
        async with asyncio.timeout_at(until):
            return await ready.get()
    except TimeoutError:
        raise late(seconds) from None


def late(seconds: float) -> HttpError:
    """What a request hears that takes too long."""
    return HttpError(504, f"the answer took more than {seconds:g} s")


async def first_of(work: asyncio.Future[T], event: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until work is done, an event has happened, or so much time has passed."""
    happening = asyncio.ensure_future(event.wait())
    either: set[asyncio.Future[Any]] = {work, happening}
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        happening.cancel()


async def end(work: asyncio.Future[Any]) -> None:
    """Cancel work that goes on, and wait until it has ended."""
    if work.done():  # to await it again would cut the frames of its error, which the log shall have
        _ = work.cancelled() or work.exception()
        return
    work.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await work
