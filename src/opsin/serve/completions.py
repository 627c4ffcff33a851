"""/completion as llama-server has it, and /v1/completions as OpenAI had it: going on with a prompt as it stands.

Who writes such a prompt writes its special tokens: they are read. Texts of other people belong into conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from opsin.api import Answer, Logprobs, Model, Question
from opsin.errors import FieldError
from opsin.serve.body import Owned
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.generation import Answers, Delta, ResponseFormat, RunningChoice, generate, write
from opsin.serve.generation_request import MOST_LOGPROBS, AnswerFields, GenerationRequest, generation_request
from opsin.serve.raw_prompts import RawPrompt, prompts_of
from opsin.serve.service import Service
from opsin.serve.usage import FINGERPRINT, finish_reason, settings_of

_Logprobs = Annotated[
    int, Meta(ge=0, le=MOST_LOGPROBS, description="Tell log-probabilities, of so many likeliest tokens.")
]


class CompletionFields(AnswerFields, kw_only=True):
    """How to go on with a prompt."""

    logprobs: _Logprobs | None = None
    n_probs: _Logprobs | None = None


@dataclass(frozen=True)
class CompletionRequest:
    """What to go on with (`texts` without ids and pictures), and what is wanted of it."""

    prompts: Owned[tuple[RawPrompt, ...]]
    texts: list[str]
    request: GenerationRequest


class CompletionRoutes:
    """Routes of prompts as they stand."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, exchange: Exchange) -> None:
        """Go on with prompts, in OpenAI's shape."""
        await self._complete(exchange, lambda texts: TextFormat(), "cmpl")

    async def native(self, exchange: Exchange) -> None:
        """Go on with prompts, in llama-server's shape."""
        await self._complete(exchange, NativeFormat, "native")

    async def _complete(self, exchange: Exchange, form: Callable[[list[str]], ResponseFormat], kind: str) -> None:
        service = self._service
        asked = await service.parse(exchange.body, self._asked)
        exchange.ping_seconds = asked.request.ping(service.options.ping_seconds)
        with service.admit(len(asked.texts) * asked.request.choices):
            async with exchange:
                questions = await service.prompt(exchange.body, partial(_questions, service.model, asked.prompts))
                answers = await generate(service, exchange, questions, asked.request, kind=kind)
                await write(exchange, answers, form(asked.texts))

    def _asked(self, body: Mapping[str, Any]) -> CompletionRequest:
        answers = self._service.options.requests
        prompts, fields = prompts_of(body), read(body, CompletionFields)
        logprobs = fields.n_probs if fields.logprobs is None else fields.logprobs
        base = self._service.facts
        request = generation_request(fields, answers=answers, logprobs=logprobs or None, base=base)
        if len(prompts) * request.choices > answers:
            raise FieldError(
                "prompt", f"{len(prompts)} prompts with {request.choices} answers each", hint="ask for fewer"
            )
        return CompletionRequest(Owned(prompts), [prompt.text for prompt in prompts], request)


def _questions(model: Model, prompts: Owned[tuple[RawPrompt, ...]], *, check: Callable[[], None]) -> list[Question]:
    return [model.raw(prompt.pieces, prompt.pictures, check=check, budget=prompt.budget) for prompt in prompts.take()]


class TextFormat:
    """OpenAI's text_completion."""

    is_marked = True

    def whole(self, told: Answers) -> Mapping[str, Any]:
        choices = [
            {
                "index": choice.index,
                "text": choice.text,
                "logprobs": _logprobs(told, choice.logprobs),
                "finish_reason": finish_reason(choice.answer),
            }
            for choice in told.choices
        ]
        return {**_head(told), "choices": choices, "usage": told.usage, "timings": told.timings(0)}

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        choice: dict[str, Any] = {"index": delta.choice, "finish_reason": None}
        logprobs = _logprobs(told, delta.piece.logprobs) if delta.piece.logprobs else None
        if delta.text:
            yield {**_head(told), "choices": [{**choice, "text": delta.text, "logprobs": logprobs}]}
            logprobs = None
        if delta.is_last:
            choice |= {"text": "", "logprobs": logprobs, "finish_reason": finish_reason(told.answers[delta.choice])}
            chunk = {**_head(told), "choices": [choice], "timings": told.timings(delta.choice)}
            # llama-server tells the usage with the last answer's end, OpenAI after it, where it was asked for
            yield {**chunk, "usage": told.usage} if told.is_over and not told.request.usage else chunk

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        if told.request.usage:
            yield {**_head(told), "choices": [], "usage": told.usage, "timings": told.timings(0)}


@dataclass(frozen=True)
class NativeFormat:
    """llama-server's own, which has no usage and no mark at its end. `prompts` are their texts."""

    prompts: list[str]
    is_marked = False

    def whole(self, told: Answers) -> Mapping[str, Any] | list[Any]:
        made = [self._last(told, choice, choice.text, told.logprobs(choice.logprobs)) for choice in told.choices]
        return made if len(made) > 1 else made[0]

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        choice, logprobs = told.choices[delta.choice], told.logprobs(delta.piece.logprobs)
        if delta.text:
            yield {**self._chunk(choice, delta.text, delta.piece.count, logprobs), "stop": False}
            logprobs = None
        if delta.is_last:
            yield self._last(told, choice, "", logprobs)

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def _chunk(self, choice: RunningChoice, text: str, count: int, logprobs: object) -> dict[str, Any]:
        chunk = {
            "index": choice.index,
            "content": text,
            "tokens": [],
            "id_slot": -1,
            "tokens_predicted": count,
            "tokens_evaluated": choice.answer.prompt_tokens,
        }
        return {**chunk, "completion_probabilities": logprobs} if logprobs else chunk

    def _last(self, told: Answers, choice: RunningChoice, text: str, logprobs: object) -> dict[str, Any]:
        answer, request = choice.answer, told.request
        return {
            **self._chunk(choice, text, len(answer.ids), logprobs),
            "stop": True,
            "tokens": answer.ids if not request.stream else [],
            "model": told.service.name,
            "generation_settings": settings_of(request.sampling, request.stop, stream=request.stream),
            "prompt": self.prompts[choice.index // request.choices],
            "has_new_line": "\n" in choice.text,
            "truncated": False,
            "stop_type": _stop_type(answer),
            "stopping_word": answer.stopping_word or "",
            "tokens_cached": answer.usage.cached,
            "timings": told.timings(choice.index),
        }


def _stop_type(answer: Answer) -> str:
    if answer.stopping_word is not None:
        return "word"
    return "limit" if answer.reason == "length" else "eos"


def _head(told: Answers) -> dict[str, Any]:
    return {**told.head, "object": "text_completion", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Answers, some: Sequence[Logprobs]) -> dict[str, object] | None:
    content = told.logprobs(some)
    return None if content is None else {"content": content}
