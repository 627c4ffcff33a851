"""/completion as llama-server has it, and /v1/completions as OpenAI had it: going on with a prompt as it stands.

Who writes such a prompt writes its special tokens: they are read. Texts of other people belong into conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from opsin.api import Answer, Model, Question
from opsin.serve.body import Body
from opsin.serve.errors import FieldError
from opsin.serve.fields import read
from opsin.serve.generation_request import MOST_LOGPROBS, AnswerFields, GenerationRequest, generation_request
from opsin.serve.job import Job, Shape, Told
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


class CompletionRoutes:
    """Routes of prompts as they stand."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, request: Request) -> Response:
        """OpenAI's shape."""
        return await self._complete(request, lambda prompts: TextShape(), "cmpl")

    async def native(self, request: Request) -> Response:
        """llama-server's shape."""
        return await self._complete(request, NativeShape, "native")

    async def _complete(self, request: Request, shape: Callable[[list[str]], Shape], kind: str) -> Response:
        service, body = self._service, Body.of(request)
        asked = await service.read(body, self._asked)
        job = Job(
            service, asked[1], shape([prompt.text for prompt in asked[0]]), partial(_ask, asked[0]),
            kind=kind, made=body.let_go, prompts=len(asked[0]),
        )  # fmt: skip
        del asked  # it may be large, and the job knows when it is done with it
        return await job.respond(request)

    def _asked(self, body: Mapping[str, Any]) -> tuple[tuple[RawPrompt, ...], GenerationRequest]:
        answers = self._service.options.requests
        prompts, fields = prompts_of(body), read(body, CompletionFields)
        logprobs = fields.n_probs if fields.logprobs is None else fields.logprobs
        base = self._service.model.facts.sampling
        request = generation_request(fields, answers=answers, logprobs=logprobs or None, base=base)
        if len(prompts) * request.choices > answers:
            raise FieldError(
                "prompt", f"{len(prompts)} prompts with {request.choices} answers each", hint="ask for fewer"
            )
        return prompts, request


def _ask(prompts: tuple[RawPrompt, ...], model: Model, check: Callable[[], None]) -> list[Question]:
    return [model.raw(prompt.pieces, prompt.pictures, check=check) for prompt in prompts]


class TextShape:
    """OpenAI's text_completion."""

    is_marked = True

    def whole(self, told: Told, texts: list[str]) -> Mapping[str, Any]:
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

    def begin(self, told: Told) -> Iterable[Mapping[str, Any]]:
        return ()

    def piece(self, told: Told, index: int, text: str) -> Mapping[str, Any]:
        choice = {"index": index, "text": text, "logprobs": _logprobs(told, index), "finish_reason": None}
        return {**_head(told), "choices": [choice]}

    def end(self, told: Told, index: int) -> Mapping[str, Any]:
        reason, logprobs = finish_reason(told.answers[index]), _logprobs(told, index, rest=True)
        choice = {"index": index, "text": "", "logprobs": logprobs, "finish_reason": reason}
        return {**_head(told), "choices": [choice], "timings": told.timings(index)}

    def usage(self, told: Told) -> Mapping[str, Any]:
        return {**_head(told), "choices": [], "usage": told.usage}


@dataclass(frozen=True)
class NativeShape:
    """llama-server's own, which has no usage and no mark at its end. `prompts` are their texts."""

    prompts: list[str]
    is_marked = False

    def whole(self, told: Told, texts: list[str]) -> Mapping[str, Any] | list[Any]:
        made = [self._last(told, index, text, told.logprobs(index)) for index, text in enumerate(texts)]
        return made if len(made) > 1 else made[0]

    def begin(self, told: Told) -> Iterable[Mapping[str, Any]]:
        return ()

    def piece(self, told: Told, index: int, text: str) -> Mapping[str, Any]:
        return self._chunk(told, index, text, told.logprobs(index)) | {"stop": False}

    def end(self, told: Told, index: int) -> Mapping[str, Any]:
        return self._last(told, index, "", told.logprobs(index, rest=True))

    def usage(self, told: Told) -> Mapping[str, Any]:
        return {**told.head, "usage": told.usage}

    def _chunk(self, told: Told, index: int, text: str, logprobs: object) -> dict[str, Any]:
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

    def _last(self, told: Told, index: int, text: str, logprobs: object) -> dict[str, Any]:
        answer, wanted = told.answers[index], told.wanted
        return {
            **self._chunk(told, index, text, logprobs),
            "stop": True,
            "tokens": answer.ids if not wanted.stream else [],
            "model": told.service.name,
            "generation_settings": settings_of(wanted.sampling, wanted.stop, stream=wanted.stream),
            "prompt": self.prompts[index // wanted.choices],
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


def _head(told: Told) -> dict[str, Any]:
    return {**told.head, "object": "text_completion", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Told, index: int, *, rest: bool = False) -> dict[str, object] | None:
    content = told.logprobs(index, rest=rest)
    return None if content is None else {"content": content}
