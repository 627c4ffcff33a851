"""/completion as llama-server has it, and /v1/completions as OpenAI had it: going on with a prompt as it stands.

Who writes such a prompt writes its special tokens: they are read. Texts of other people belong into conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from opsin.api import Answer, Model, Question
from opsin.errors import FieldError
from opsin.serve.body import Owned
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.generation import Answers, ResponseFormat, generate, write
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
        base = self._service.model.facts
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

    def whole(self, told: Answers, texts: list[str]) -> Mapping[str, Any]:
        choices = [
            {
                "index": index,
                "text": text,
                "logprobs": _logprobs(told, index),
                "finish_reason": finish_reason(told.answers[index]),
            }
            for index, text in enumerate(texts)
        ]
        return {**_head(told), "choices": choices, "usage": told.usage, "timings": told.timings(0)}

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def piece(self, told: Answers, index: int, text: str) -> Mapping[str, Any]:
        choice = {"index": index, "text": text, "logprobs": _logprobs(told, index), "finish_reason": None}
        return {**_head(told), "choices": [choice]}

    def end(self, told: Answers, index: int) -> Mapping[str, Any]:
        reason, logprobs = finish_reason(told.answers[index]), _logprobs(told, index, rest=True)
        choice = {"index": index, "text": "", "logprobs": logprobs, "finish_reason": reason}
        return {**_head(told), "choices": [choice], "timings": told.timings(index)}

    def usage(self, told: Answers) -> Mapping[str, Any]:
        return {**_head(told), "choices": [], "usage": told.usage}


@dataclass(frozen=True)
class NativeFormat:
    """llama-server's own, which has no usage and no mark at its end. `prompts` are their texts."""

    prompts: list[str]
    is_marked = False

    def whole(self, told: Answers, texts: list[str]) -> Mapping[str, Any] | list[Any]:
        made = [self._last(told, index, text, told.logprobs(index)) for index, text in enumerate(texts)]
        return made if len(made) > 1 else made[0]

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        return ()

    def piece(self, told: Answers, index: int, text: str) -> Mapping[str, Any]:
        return self._chunk(told, index, text, told.logprobs(index)) | {"stop": False}

    def end(self, told: Answers, index: int) -> Mapping[str, Any]:
        return self._last(told, index, "", told.logprobs(index, rest=True))

    def usage(self, told: Answers) -> Mapping[str, Any]:
        return {**told.head, "usage": told.usage}

    def _chunk(self, told: Answers, index: int, text: str, logprobs: object) -> dict[str, Any]:
        answer = told.answers[index]
        chunk = {
            "index": index,
            "content": text,
            "tokens": [],
            "id_slot": -1,
            "tokens_predicted": len(answer.ids),
            "tokens_evaluated": answer.prompt_tokens,
        }
        return chunk if logprobs is None else {**chunk, "completion_probabilities": logprobs}

    def _last(self, told: Answers, index: int, text: str, logprobs: object) -> dict[str, Any]:
        answer, request = told.answers[index], told.request
        return {
            **self._chunk(told, index, text, logprobs),
            "stop": True,
            "tokens": answer.ids if not request.stream else [],
            "model": told.service.name,
            "generation_settings": settings_of(request.sampling, request.stop, stream=request.stream),
            "prompt": self.prompts[index // request.choices],
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": _stop_type(answer),
            "stopping_word": answer.stopping_word or "",
            "tokens_cached": answer.usage.cached,
            "timings": told.timings(index),
        }


def _stop_type(answer: Answer) -> str:
    if answer.stopping_word is not None:
        return "word"
    return "limit" if answer.reason == "length" else "eos"


def _head(told: Answers) -> dict[str, Any]:
    return {**told.head, "object": "text_completion", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Answers, index: int, *, rest: bool = False) -> dict[str, object] | None:
    content = told.logprobs(index, rest=rest)
    return None if content is None else {"content": content}
