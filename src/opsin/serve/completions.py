"""/completion as llama-server has it, and /v1/completions as OpenAI had it: going on with a prompt as it stands.

Who writes such a prompt writes its special tokens: they are read. Texts of other people belong into conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from opsin.api import Model, Question
from opsin.api.infilling import infill, missing_tokens
from opsin.api.replies import ReplyOptions
from opsin.errors import FieldError
from opsin.media.sound import Sound, is_sound
from opsin.serve.body import Owned
from opsin.serve.errors import HttpError
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.generation import ResponseFormat, generate
from opsin.serve.generation_request import AnswerFields, GenerationRequest, generation_request
from opsin.serve.native_format import NativeFormat
from opsin.serve.prompt_fields import PromptFields, salt_of
from opsin.serve.raw_prompts import Piece, RawPrompt, gaps_of, prompts_of
from opsin.serve.report_fields import MOST_LOGPROBS
from opsin.serve.service import Service
from opsin.serve.text_format import TextFormat
from opsin.serve.thought_fields import thought_tokens_of
from opsin.serve.writing import write

_Logprobs = Annotated[
    int | bool, Meta(description=f"Tell log-probabilities, of so many likeliest tokens: at most {MOST_LOGPROBS}.")
]


class CompletionFields(AnswerFields, kw_only=True):
    """How to go on with a prompt."""

    logprobs: _Logprobs | None = None
    n_probs: _Logprobs | None = None
    echo: Annotated[bool, Meta(description="Tell the prompt before the answer, with log-probabilities if asked.")] = (
        False
    )
    best_of: Annotated[int, Meta(ge=1, le=16, description="Make so many answers, and tell the n likeliest.")] | None = (
        None
    )


ReadPrompts = Callable[[Mapping[str, Any]], tuple[RawPrompt, ...]]


@dataclass(frozen=True)
class CompletionRequest:
    """What to go on with, and what is wanted of it. `echo`: prompts are told before their answers.

    `salt` as in `PromptOptions`.
    """

    prompts: Owned[tuple[RawPrompt, ...]]
    count: int
    request: GenerationRequest
    echo: bool = False
    salt: bytes = b""


class CompletionRoutes:
    """Routes of prompts as they stand."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, exchange: Exchange) -> None:
        """Go on with prompts, in OpenAI's shape."""
        form = lambda asked, texts: TextFormat(texts if asked.echo else None)  # noqa: E731
        await self._complete(exchange, form, "cmpl-", prompts_of)

    async def native(self, exchange: Exchange) -> None:
        """Go on with prompts, in llama-server's shape."""
        await self._complete(exchange, lambda asked, texts: NativeFormat(), "native-", prompts_of)

    async def infill(self, exchange: Exchange) -> None:
        """Write what stands between two texts, in llama-server's shape, with a model for code."""
        missing = missing_tokens(self._service.model.tokenizer)
        if missing:
            what = " ".join(f"{name} token is missing." for name in missing)
            raise HttpError(501, f"Infill is not supported by this model: {what}", hint="take a model for code")
        await self._complete(exchange, lambda asked, texts: NativeFormat(), "infill-", gaps_of)

    async def _complete(
        self, exchange: Exchange, form: Callable[[CompletionRequest, list[str]], ResponseFormat], kind: str,
        read_prompts: ReadPrompts,
    ) -> None:  # fmt: skip
        reader = partial(self.asked, openai=kind == "cmpl-", read_prompts=read_prompts, tenant=exchange.tenant)
        asked = await self._service.parse(exchange.body, reader)
        await self.answer(exchange, asked, form, kind)

    async def answer(
        self, exchange: Exchange, asked: CompletionRequest,
        form: Callable[[CompletionRequest, list[str]], ResponseFormat], kind: str,
    ) -> None:  # fmt: skip
        """Answer what was asked."""
        service = self._service
        exchange.ping_seconds = asked.request.ping(service.options.ping_seconds)
        with service.admit(asked.count * asked.request.candidates):
            async with exchange:
                questions, texts = await service.prompt(
                    exchange.body, partial(_read, service.model, asked, service.media_marker)
                )
                answers = await generate(service, exchange, questions, asked.request, kind=kind)
                await write(exchange, answers, form(asked, texts))

    def asked(
        self, body: Mapping[str, Any], *, openai: bool = False, read_prompts: ReadPrompts = prompts_of, tenant: str
    ) -> CompletionRequest:
        """What a body asks for. Raises FieldError, naming the field."""
        most = self._service.options.requests
        prompts, fields = read_prompts(body), read(body, CompletionFields)
        logprobs, echo = _logprobs(fields), fields.echo and openai
        if echo and logprobs is not None and fields.prompt_logprobs is None:
            fields.prompt_logprobs = logprobs
        tokens, usual = thought_tokens_of(fields), self._service.usual
        reply = None if tokens is None else ReplyOptions(thoughts="raw", thought_tokens=tokens)
        request = generation_request(fields, answers=most, logprobs=logprobs, usual=usual, reply=reply)
        candidates = fields.best_of or request.choices
        if candidates < request.choices:
            raise FieldError("best_of", f"{candidates} of which {request.choices} are told", hint="give n or more")
        if candidates > request.choices and request.stream:
            raise FieldError("best_of", "a stream tells answers before the best are known", hint="send stream: false")
        if len(prompts) * candidates > most:
            raise FieldError("prompt", f"{len(prompts)} prompts with {candidates} answers each", hint="ask for fewer")
        request = replace(request, candidates=candidates)
        salt = salt_of(read(body, PromptFields).cache_salt, tenant)
        return CompletionRequest(Owned(prompts), len(prompts), request, echo, salt)


def _logprobs(fields: CompletionFields) -> int | None:
    """Of how many rivals log-probabilities are told; None for none at all."""
    name = "n_probs" if fields.logprobs is None else "logprobs"
    given = int(getattr(fields, name) or 0)
    if not 0 <= given <= MOST_LOGPROBS:
        raise FieldError(name, f"{given} is out of range", hint=f"give 0 to {MOST_LOGPROBS}")
    return given or None


def _read(
    model: Model, asked: CompletionRequest, marker: str, *, check: Callable[[], None]
) -> tuple[list[Question], list[str]]:
    """Prompts, and their texts as the client wrote them. `marker` is what clients write for a picture."""
    questions, texts, tokens = [], [], asked.request.sampling.max_tokens or 0
    for prompt in asked.prompts.take():
        if prompt.gap is not None:
            questions.append(infill(model, prompt.gap, tokens=tokens, check=check, salt=asked.salt))
        else:
            pieces = _marked(prompt, marker, model.picture_marker)
            questions.append(model.raw(pieces, _media(prompt), check=check, budget=prompt.budget, salt=asked.salt))
        texts.append(
            "".join(p if isinstance(p, str) else model.tokenizer.decode(p, special=True) for p in prompt.pieces)
        )
    return questions, texts


def _media(prompt: RawPrompt) -> list[bytes | Sound]:
    """The files of a prompt; those of sound say so."""
    return [Sound(data) if is_sound(data) else data for data in prompt.pictures]


def _marked(prompt: RawPrompt, marker: str, own: str) -> Sequence[Piece]:
    """Pieces with the model's own marker where a picture belongs; without pictures they stand as they are."""
    if not prompt.pictures:
        return prompt.pieces
    return [piece.replace(marker, own) if isinstance(piece, str) else piece for piece in prompt.pieces]
