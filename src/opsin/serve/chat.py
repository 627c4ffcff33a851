"""/v1/chat/completions: a conversation in, answers out, whole or as events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from opsin.api import Answer
from opsin.errors import RequestError
from opsin.serve.body import GONE, Body
from opsin.serve.chat_request import ChatRequest, chat_request, messages_of
from opsin.serve.failures import HttpError, LengthError, body_of, heard
from opsin.serve.running import Delta, deltas
from opsin.serve.service import Service
from opsin.serve.usage import finish_reason, logprobs_of, usage_of

T = TypeVar("T")


class Endpoints:
    """Routes of conversations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        service, body = self._service, Body.of(request)
        asked = await service.read(body, self._asked)
        job = Job(service, asked, body.let_go)
        if not asked.stream:
            return await _unless_gone(request, job.whole())
        events = job.events()
        first = await _unless_gone(request, anext(events))  # an error before the first text is an ordinary response
        return _Events(first, events)

    async def count(self, request: Request) -> Response:
        """Tokens of a conversation, pictures included; nothing is computed."""
        service = self._service
        messages = await service.read(Body.of(request), messages_of)
        until = asyncio.get_running_loop().time() + service.options.seconds
        with service.place():
            making = service.make(lambda check: service.model.count(messages, check=check), until)
            count = await _unless_gone(request, making)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": count})

    def _asked(self, body: Mapping[str, Any]) -> ChatRequest:
        return chat_request(body, answers=self._service.options.requests)


class Job:
    """One request: its answers, and their shapes on the way out."""

    def __init__(self, service: Service, asked: ChatRequest, made: Callable[[], None]) -> None:
        self._service, self._asked, self._made = service, replace(asked, messages=()), made
        self._messages = asked.messages  # until the prompt is made: they may be large
        self._answers: list[Answer] = []
        self._told: dict[int, int] = {}  # log-probabilities already sent, by choice
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    async def whole(self) -> Response:
        """All answers in one response."""
        texts = [""] * self._asked.choices
        async with aclosing(self._deltas()) as pieces:
            async for delta in pieces:
                texts[delta.choice] += delta.text
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "logprobs": self._logprobs(index),
                "finish_reason": finish_reason(self._answers[index]),
            }
            for index, text in enumerate(texts)
        ]
        return JSONResponse({**self._head("chat.completion"), "choices": choices, "usage": usage_of(self._answers)})

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answers as server-sent events. After the first one, errors are events too."""
        begun = False
        try:
            async with aclosing(self._deltas()) as pieces:
                async for delta in pieces:
                    if not begun:
                        begun = True
                        for index in range(self._asked.choices):
                            yield self._chunk(index, {"role": "assistant", "content": ""})
                    if delta.text:
                        yield self._chunk(delta.choice, {"content": delta.text}, self._logprobs(delta.choice))
                    if delta.end:
                        reason = finish_reason(self._answers[delta.choice])
                        yield self._chunk(delta.choice, {}, self._logprobs(delta.choice, rest=True), end=reason)
        except Exception as error:
            if not begun:
                raise
            yield _event(body_of(heard(error)))
            return
        if self._asked.usage:
            whole = {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(self._answers)}
            yield _event(whole)
        yield b"data: [DONE]\n\n"

    async def _deltas(self) -> AsyncGenerator[Delta, None]:
        service, start = self._service, time.perf_counter()
        seconds = service.options.seconds
        until = asyncio.get_running_loop().time() + seconds
        with service.place(self._asked.choices):
            self._answers = await service.make(self._begin, until)
            self._messages = ()
            self._made()
            waiting = True
            async with aclosing(deltas(self._answers, service.readers, until=until, seconds=seconds)) as pieces:
                async for delta in pieces:
                    if waiting:
                        waiting = False
                        service.metrics.add("first_token_seconds_total", time.perf_counter() - start)
                    yield delta
            self._counted(time.perf_counter() - start)

    def _begin(self, check: Callable[[], None]) -> list[Answer]:
        """Read the conversation and start its answers. `check` raises where nobody waits for them."""
        model, asked = self._service.model, self._asked
        question = model.question(self._messages, check=check)
        check()
        answers: list[Answer] = []
        for index in range(asked.choices):
            seed = asked.sampling.seed
            sampling = asked.sampling if seed is None else replace(asked.sampling, seed=(seed + index) % (1 << 64))
            try:
                answers.append(model.generate(question, sampling, stop=asked.stop))
            except RequestError as error:
                if len(question.prompt) >= model.context:
                    raise LengthError(error, prompt=len(question.prompt), context=model.context) from error
                raise
        return answers

    def _counted(self, seconds: float) -> None:
        usage, metrics = usage_of(self._answers), self._service.metrics
        details = usage["prompt_tokens_details"]
        metrics.add("prompt_tokens_total", usage["prompt_tokens"])
        metrics.add("cached_tokens_total", details["cached_tokens"])
        metrics.add("media_tokens_total", details["image_tokens"])
        metrics.add("generated_tokens_total", usage["completion_tokens"])
        metrics.add("answer_seconds_total", seconds)

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._service.name}

    def _logprobs(self, index: int, *, rest: bool = False) -> dict[str, object] | None:
        """Those that have not been sent yet; None where none were asked for, or of a rest where none is left."""
        if self._asked.sampling.logprobs is None:
            return None
        start = self._told.get(index, 0)
        content = logprobs_of(self._answers[index], start, self._service.model.tokenizer)
        self._told[index] = start + len(content)
        if rest and not content:
            return None
        return {"content": content, "refusal": None}

    def _chunk(
        self, index: int, delta: Mapping[str, object], logprobs: object = None, *, end: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class _Events(StreamingResponse):
    """A stream of events whose source is closed with it, however it ends."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_chain(first, rest), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in rest:
        yield event
        await asyncio.sleep(0)  # where many events are ready, others have their turn, and a lost client is noticed


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do the work; give it up when the client goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HttpError(GONE, "the client went away")
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
