"""/v1/chat/completions: a conversation in, answers out, whole or as events. Also what it counts, and its template."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.api import Message, Model, Question
from opsin.serve.body import Body
from opsin.serve.conversation import conversation
from opsin.serve.errors import FieldError
from opsin.serve.fields import read, unbuilt
from opsin.serve.generation_request import MOST_LOGPROBS, AnswerFields, GenerationRequest, generation_request
from opsin.serve.job import Job, Told
from opsin.serve.service import Service
from opsin.serve.stream import unless_gone
from opsin.serve.usage import FINGERPRINT, finish_reason


class ChatFields(AnswerFields, kw_only=True):
    """How to answer a conversation."""

    logprobs: Annotated[bool, Meta(description="Tell the log-probability of each token.")] = False
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS, description="And of so many likeliest ones.")] | None = (
        None
    )
    n_probs: Annotated[Any, unbuilt(0, send="logprobs and top_logprobs")] = None


class ChatRoutes:
    """Routes of conversations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, request: Request) -> Response:
        """Answer a conversation."""
        service, body = self._service, Body.of(request)
        asked = await service.read(body, self._asked)
        job = Job(service, asked[1], ChatShape(), partial(_ask, asked[0]), kind="chatcmpl", made=body.let_go)
        del asked  # it may be large, and the job knows when it is done with it
        return await job.respond(request)

    async def count(self, request: Request) -> Response:
        """Tokens of a conversation, pictures included; nothing is computed."""

        def count(model: Model, messages: Sequence[Message], check: Callable[[], None]) -> Response:
            told = {"object": "response.input_tokens", "input_tokens": model.count(messages, check=check)}
            return JSONResponse(told)

        return await self._of_messages(request, count)

    async def template(self, request: Request) -> Response:
        """What the template makes of a conversation."""

        def write(model: Model, messages: Sequence[Message], check: Callable[[], None]) -> Response:
            return JSONResponse({"prompt": model.write(messages, check=check)})

        return await self._of_messages(request, write)

    async def _of_messages(
        self, request: Request, work: Callable[[Model, Sequence[Message], Callable[[], None]], Response]
    ) -> Response:
        service = self._service
        messages = await service.read(Body.of(request), conversation)
        until = asyncio.get_running_loop().time() + service.options.seconds
        with service.admit():
            making = service.make(lambda check: work(service.model, messages, check), until)
            return await unless_gone(request, making)

    def _asked(self, body: Mapping[str, Any]) -> tuple[Sequence[Message], GenerationRequest]:
        messages, fields = conversation(body), read(body, ChatFields)
        if fields.top_logprobs and not fields.logprobs:
            raise FieldError("top_logprobs", "logprobs is not set", hint="send logprobs: true")
        request = generation_request(
            fields, answers=self._service.options.requests, base=self._service.model.facts.sampling,
            logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
        )  # fmt: skip
        return messages, request


def _ask(messages: Sequence[Message], model: Model, check: Callable[[], None]) -> list[Question]:
    return [model.question(messages, check=check)]


class ChatShape:
    """OpenAI's chat.completion."""

    is_marked = True

    def whole(self, told: Told, texts: list[str]) -> Mapping[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "logprobs": _logprobs(told, index),
                "finish_reason": finish_reason(told.answers[index]),
            }
            for index, text in enumerate(texts)
        ]
        head = {**told.head, "object": "chat.completion", "system_fingerprint": FINGERPRINT}
        return {**head, "choices": choices, "usage": told.usage, "timings": told.timings(0)}

    def begin(self, told: Told) -> Iterable[Mapping[str, Any]]:
        return [self._chunk(told, i, {"role": "assistant", "content": ""}) for i in range(told.wanted.choices)]

    def piece(self, told: Told, index: int, text: str) -> Mapping[str, Any]:
        return self._chunk(told, index, {"content": text}, _logprobs(told, index))

    def end(self, told: Told, index: int) -> Mapping[str, Any]:
        logprobs = _logprobs(told, index, rest=True)
        chunk = self._chunk(told, index, {}, logprobs, end=finish_reason(told.answers[index]))
        return {**chunk, "timings": told.timings(index)}

    def usage(self, told: Told) -> Mapping[str, Any]:
        return {**_head(told), "choices": [], "usage": told.usage}

    def _chunk(
        self, told: Told, index: int, delta: Mapping[str, object], logprobs: object = None, *, end: str | None = None
    ) -> Mapping[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return {**_head(told), "choices": [choice]}


def _head(told: Told) -> dict[str, Any]:
    return {**told.head, "object": "chat.completion.chunk", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Told, index: int, *, rest: bool = False) -> dict[str, object] | None:
    content = told.logprobs(index, rest=rest)
    return None if content is None else {"content": content, "refusal": None}
