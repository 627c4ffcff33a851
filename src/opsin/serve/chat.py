"""/v1/chat/completions: a conversation in, answers out, whole or as events. Also what it counts, and its template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from opsin.api import Answer, Logprobs, Model, Question
from opsin.api.replies import ReplyOptions
from opsin.errors import FieldError
from opsin.serve.conversation import AskedConversation, conversation
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.generation import Answers, Delta, generate, write
from opsin.serve.generation_request import AnswerFields, GenerationRequest, generation_request
from opsin.serve.native_format import about_prompt, verbose
from opsin.serve.report_fields import MOST_LOGPROBS
from opsin.serve.service import Service
from opsin.serve.thought_fields import thought_tokens_of
from opsin.serve.usage import FINGERPRINT, finish_reason
from opsin.text.calls import CallArguments, Content, ReplyDelta, Thought


class ChatFields(AnswerFields, kw_only=True):
    """How to answer a conversation."""

    logprobs: Annotated[bool, Meta(description="Tell the log-probability of each token.")] = False
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS, description="And of so many likeliest ones.")] | None = (
        None
    )
    n_probs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS, description="Both in one number, as llama-server has it.")] = 0


@dataclass(frozen=True)
class ChatRequest:
    """A conversation, and what is wanted of it."""

    conversation: AskedConversation
    request: GenerationRequest
    form: ChatFormat


class ChatRoutes:
    """Routes of conversations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, exchange: Exchange) -> None:
        """Answer a conversation."""
        service = self._service
        asked = await service.parse(exchange.body, self._asked)
        exchange.ping_seconds = asked.request.ping(service.options.ping_seconds)
        with service.admit(asked.request.choices):
            async with exchange:
                questions = await service.prompt(exchange.body, partial(_questions, service.model, asked.conversation))
                answers = await generate(service, exchange, questions, asked.request, kind="chatcmpl")
                await write(exchange, answers, asked.form)

    async def count(self, exchange: Exchange) -> None:
        """Tokens of a conversation, pictures included; nothing is computed."""
        service = self._service
        asked = await service.parse(exchange.body, conversation)
        with service.admit():
            async with exchange:
                count = await service.prompt(
                    exchange.body,
                    partial(service.model.count, asked.messages.take(), asked.options, budget=asked.budget),
                )
                await exchange.value({"object": "response.input_tokens", "input_tokens": count})

    async def template(self, exchange: Exchange) -> None:
        """What the template makes of a conversation."""
        service = self._service
        asked = await service.parse(exchange.body, conversation)
        with service.admit():
            async with exchange:
                text = await service.prompt(
                    exchange.body, partial(service.model.write, asked.messages.take(), asked.options)
                )
                await exchange.value({"prompt": text})

    def _asked(self, body: Mapping[str, Any]) -> ChatRequest:
        asked, fields = conversation(body), read(body, ChatFields)
        if asked.tools.declared:
            raise FieldError("functions" if "functions" in body else "tools", "not supported yet", hint="leave it out")
        if fields.top_logprobs and not fields.logprobs:
            raise FieldError("top_logprobs", "logprobs is not set", hint="send logprobs: true")
        request = generation_request(
            fields, answers=self._service.options.requests, base=self._service.facts,
            logprobs=(fields.top_logprobs or 0) if fields.logprobs else fields.n_probs or None,
        )  # fmt: skip
        return ChatRequest(asked, replace(request, reply=_reply(asked, fields)), ChatFormat(_tells(asked, fields)))


def _reply(asked: AskedConversation, fields: ChatFields) -> ReplyOptions:
    """How the answer is read, and how long its thoughts may be: none, where they are not wanted."""
    where, wanted = fields.reasoning_format, asked.thoughts.wanted
    within = where == "none" or (where == "deepseek-legacy" and fields.stream)
    beside = 0 if wanted is False else asked.thoughts.tokens
    return ReplyOptions(asked.tools, "within" if within else "apart", thought_tokens_of(fields, beside))


def _tells(asked: AskedConversation, fields: ChatFields) -> bool:
    """Whether thoughts that stand apart are told."""
    return asked.thoughts.told and fields.include_reasoning is not False


def _questions(model: Model, asked: AskedConversation, *, check: Callable[[], None]) -> list[Question]:
    return [model.question(asked.messages.take(), asked.options, check=check, budget=asked.budget)]


@dataclass(frozen=True)
class ChatFormat:
    """OpenAI's chat.completion. `thoughts`: whether they are told."""

    thoughts: bool = True
    is_marked: ClassVar[bool] = True

    def whole(self, told: Answers) -> Mapping[str, Any]:
        choices: list[dict[str, Any]] = [
            {
                "index": choice.index,
                "message": self._message(choice.answer),
                "logprobs": _logprobs(told, choice.logprobs),
                "finish_reason": finish_reason(choice.answer),
            }
            for choice in told.choices
        ]
        head = {**told.head, "object": "chat.completion", "system_fingerprint": FINGERPRINT}
        for choice, value in zip(told.choices, choices, strict=True):
            value |= {"token_ids": choice.answer.ids} if told.request.report.token_ids else {}
        whole = {**head, "choices": choices, "usage": told.usage, "timings": told.timings(0)}
        return {**whole, **about_prompt(told), **verbose(told, told.choices[0])}

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        first = {"role": "assistant", "content": None}
        return [self._chunk(told, index, first) for index in range(told.request.choices)]

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        logprobs = _logprobs(told, delta.piece.logprobs) if delta.piece.logprobs else None
        extras = told.extras(delta)
        if delta.piece.progress is not None:
            yield {**self._chunk(told, delta.choice, {}), **extras}
        for part in delta.piece.deltas:
            if self.thoughts or not isinstance(part, Thought):
                yield {**self._chunk(told, delta.choice, _told(part), logprobs), **extras}
                logprobs = None
        if delta.is_last:
            reason = finish_reason(told.answers[delta.choice])
            chunk = self._chunk(told, delta.choice, {}, logprobs, end=reason)
            chunk = {**chunk, **verbose(told, told.choices[delta.choice])}
            # llama-server's timings stand in the last chunk of all
            yield chunk if told.request.usage else {**chunk, "timings": told.timings(delta.choice)}

    def _message(self, answer: Answer) -> Mapping[str, Any]:
        """Of an answer that is over. One that only calls has no content."""
        message = answer.message
        if not self.thoughts:
            message.pop("reasoning_content", None)
        return {**message, "content": message["content"] or None} if answer.is_calling else message

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        if told.request.usage:
            yield {**_head(told), "choices": [], "usage": told.usage, "timings": told.timings(0)}

    def _chunk(
        self, told: Answers, index: int, delta: Mapping[str, object], logprobs: object = None, *,
        end: str | None = None,
    ) -> Mapping[str, Any]:  # fmt: skip
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return {**_head(told), "choices": [choice]}


def _told(part: ReplyDelta) -> dict[str, object]:
    """A part of an answer as a delta has it."""
    if isinstance(part, Content):
        return {"content": part.text}
    if isinstance(part, Thought):
        return {"reasoning_content": part.text}
    if isinstance(part, CallArguments):
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}
    function = {"name": part.name, "arguments": ""}
    return {"tool_calls": [{"index": part.index, "id": part.id, "type": "function", "function": function}]}


def _head(told: Answers) -> dict[str, Any]:
    return {**told.head, "object": "chat.completion.chunk", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Answers, some: Sequence[Logprobs]) -> dict[str, object] | None:
    content = told.logprobs(some)
    return None if content is None else {"content": content, "refusal": None}
