"""/v1/chat/completions: a conversation in, answers out, whole or as events. Also what it counts, and its template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

from msgspec import Meta

from opsin.api import Model, Question
from opsin.api.replies import ReplyOptions
from opsin.errors import FieldError
from opsin.serve.chat_defaults import fill
from opsin.serve.chat_format import ChatFormat
from opsin.serve.conversation import AskedConversation, conversation
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.generation import ResponseFormat, generate
from opsin.serve.generation_request import AnswerFields, GenerationRequest, generation_request
from opsin.serve.report_fields import MOST_LOGPROBS
from opsin.serve.service import Service
from opsin.serve.thought_fields import thought_tokens_of
from opsin.serve.translated import Translated
from opsin.serve.writing import write


class ChatFields(AnswerFields, kw_only=True):
    """How to answer a conversation."""

    logprobs: Annotated[bool, Meta(description="Tell the log-probability of each token.")] = False
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS, description="And of so many likeliest ones.")] | None = (
        None
    )
    echo: Annotated[bool, Meta(description="A stream begins with the text that is gone on with.")] = False
    n_probs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS, description="Both in one number, as llama-server has it.")] = 0


@dataclass(frozen=True)
class ChatRequest:
    """A conversation, and what is wanted of it.

    `translated`: the body that it was read from.
    """

    conversation: AskedConversation
    request: GenerationRequest
    form: ResponseFormat
    translated: Translated


@dataclass(frozen=True)
class ChatProtocol:
    """Conversations as a protocol has them.

    Attributes:
        kind: what the ids of answers begin with.
        translate: makes its bodies ours. Raises FieldError.
        form: how answers are told.
        count: how the number of a prompt's tokens is.
    """

    kind: str
    translate: Callable[[Mapping[str, Any]], Translated]
    form: Callable[[AskedConversation, ChatFields, Translated], ResponseFormat]
    count: Callable[[int], Mapping[str, Any]] = lambda count: {"object": "response.input_tokens", "input_tokens": count}


class ChatRoutes:
    """Routes of conversations in one protocol."""

    def __init__(self, service: Service, protocol: ChatProtocol) -> None:
        self._service, self._protocol = service, protocol

    async def complete(self, exchange: Exchange) -> None:
        """Answer a conversation."""
        asked = await self._service.parse(exchange.body, partial(self.asked, tenant=exchange.tenant))
        await self.answer(exchange, asked)

    async def answer(self, exchange: Exchange, asked: ChatRequest) -> None:
        """Answer what was asked."""
        service = self._service
        exchange.ping_seconds = asked.request.ping(service.options.ping_seconds)
        with service.admit(asked.request.choices):
            async with exchange:
                with asked.translated.errors_of_client():
                    questions = await service.prompt(
                        exchange.body, partial(_questions, service.model, asked.conversation)
                    )
                answers = await generate(service, exchange, questions, asked.request, kind=self._protocol.kind)
                await write(exchange, answers, asked.form)

    async def count(self, exchange: Exchange) -> None:
        """Tokens of a conversation, pictures included; nothing is computed."""
        service = self._service
        reader = partial(self._conversation, tenant=exchange.tenant)
        translated, asked = await service.parse(exchange.body, reader)
        with service.admit():
            async with exchange:
                work = partial(service.model.count, asked.messages.take(), asked.options, budget=asked.budget)
                with translated.errors_of_client():
                    count = await service.prompt(exchange.body, work)
                await exchange.value(self._protocol.count(count))

    async def template(self, exchange: Exchange) -> None:
        """What the template makes of a conversation."""
        service = self._service
        _, asked = await service.parse(exchange.body, partial(self._conversation, tenant=exchange.tenant))
        with service.admit():
            async with exchange:
                text = await service.prompt(
                    exchange.body, partial(service.model.write, asked.messages.take(), asked.options)
                )
                await exchange.value({"prompt": text.replace(service.model.picture_marker, service.media_marker)})

    def _translated(self, body: Mapping[str, Any]) -> Translated:
        translated = self._protocol.translate(body)
        return replace(translated, body=fill(translated.body, self._service.options.chat_defaults), sent=body)

    def _conversation(self, body: Mapping[str, Any], *, tenant: str) -> tuple[Translated, AskedConversation]:
        translated = self._translated(body)
        with translated.errors_of_client():
            return translated, self._read(translated.body, tenant)

    def _read(self, body: Mapping[str, Any], tenant: str) -> AskedConversation:
        return conversation(body, prefill=self._service.options.prefill, files=self._service.state.files.of(tenant))

    def asked(self, body: Mapping[str, Any], *, tenant: str) -> ChatRequest:
        """What a body of this tenant's asks for. Raises FieldError, naming the field as the client knows it."""
        translated = self._translated(body)
        with translated.errors_of_client():
            asked, fields = self._read(translated.body, tenant), read(translated.body, ChatFields)
            if fields.grammar and asked.tools.callable:
                raise FieldError("grammar", "stands beside tools, which have a grammar", hint="send one of them")
            if fields.top_logprobs and not fields.logprobs:
                raise FieldError("top_logprobs", "logprobs is not set", hint="send logprobs: true")
            request = generation_request(
                fields, answers=self._service.options.requests, usual=self._service.usual,
                logprobs=(fields.top_logprobs or 0) if fields.logprobs else fields.n_probs or None,
                reply=_reply(asked, fields),
            )  # fmt: skip
        return ChatRequest(asked, request, self._protocol.form(asked, fields, translated), translated.without_bodies)


def check_chat_defaults(defaults: Mapping[str, Any]) -> None:
    """Raises FieldError for what no conversation could say."""
    body = {"messages": [{"role": "user", "content": "a"}], **defaults}
    conversation(body)
    read(body, ChatFields)


def _reply(asked: AskedConversation, fields: ChatFields) -> ReplyOptions:
    """How the answer is read, and how long its thoughts may be: none, where they are not wanted."""
    where, wanted = fields.reasoning_format, asked.thoughts.wanted
    within = where == "none" or (where == "deepseek-legacy" and fields.stream)
    beside = 0 if wanted is False else asked.thoughts.tokens
    return ReplyOptions(
        asked.tools, "within" if within else "apart", thought_tokens_of(fields, beside),
        "" if wanted is False else fields.reasoning_budget_message,
    )  # fmt: skip


def _form(asked: AskedConversation, fields: ChatFields, translated: Translated) -> ChatFormat:
    """How the answer is told."""
    return ChatFormat(
        tells_thoughts(asked, fields), one_call=asked.in_first_form, prefill=asked.prefill, echo=fields.echo
    )


def tells_thoughts(asked: AskedConversation, fields: ChatFields) -> bool:
    """Whether what the model thinks is told."""
    return asked.thoughts.told and fields.include_reasoning is not False


OPENAI_CHAT: Final = ChatProtocol("chatcmpl-", Translated, _form)


def _questions(model: Model, asked: AskedConversation, *, check: Callable[[], None]) -> list[Question]:
    return [model.question(asked.messages.take(), asked.options, check=check, budget=asked.budget)]
