"""Errors in the server's log: where they came from, and not a word of what people sent.

An exception of Python may hold anything in its message (`KeyError: 'my secret'`): the log has its type and its frames.
With OPSIN_DEBUG=1 it has the messages, too.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextvars import ContextVar

from opsin.config import is_debugging
from opsin.errors import OpsinError

current_id: ContextVar[str] = ContextVar("request_id", default="")  # of the request that a task serves


def trace(error: BaseException) -> str:
    """Frames and kinds of an error and of what caused it. Messages only of our own failures, which name files."""
    if is_debugging():
        return "".join(traceback.format_exception(error)).rstrip()
    lines = ["Traceback (most recent call last):\n"]
    for one in reversed(list(_chain(error, set()))):
        lines += traceback.format_tb(one.__traceback__)
        own = isinstance(one, OpsinError) and one.stranger is not None
        lines.append(f"{type(one).__name__}: {one}\n" if own else f"{type(one).__name__}\n")
    return "".join(lines).rstrip()


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """An error, then what caused it."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _chain(part, seen)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _chain(cause, seen)


def without_messages(record: logging.LogRecord) -> bool:
    """A filter for loggers of others: their tracebacks become ours."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, asyncio.CancelledError):
        return False  # that an answer was cut off when the server was told to end is no defect
    if error is not None:
        record.exc_info, record.exc_text = None, trace(error)
    return True
