"""Embeddings: /v1/embeddings as OpenAI has it, /embedding and /embeddings as llama-server has them.

A text is what somebody wrote: texts of special tokens are ordinary text in it. They are read in `prompt_string`, where
they stand beside the markers of pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from opsin.api import Model
from opsin.api.embedding import shortened
from opsin.arrays import Floats
from opsin.engine.pooling import Pooling
from opsin.errors import FieldError, RequestError
from opsin.media.budget import USUAL
from opsin.serve.body import Owned
from opsin.serve.budget_fields import BudgetFields, budget_of
from opsin.serve.conversation import AskedConversation, ChatMessage, conversation
from opsin.serve.exchange import Exchange
from opsin.serve.fields import Fields, one_of, read, unbuilt
from opsin.serve.prompt_fields import CacheSalt, salt_of
from opsin.serve.raw_prompts import Id, PictureFiles, Piece, pieces_of
from opsin.serve.service import Service
from opsin.spans import Prompt

MOST, _MOST_TOKENS, _MOST_VALUES = 2048, 300_000, 1 << 22  # of a request; the first two are OpenAI's
_HINT = 'give a text, ids, {"prompt_string": "...", "multimodal_data": [...]}, {"content": [...]}, or a list of such'
_MEDIA = 'send "input": {"prompt_string": "...", "multimodal_data": ["BASE64"]}, or {"content": [...]}'
_EUCLIDEAN = 2


class EmbeddingObject(BudgetFields, kw_only=True):
    """An input with pictures: a text with markers and their files, or parts as in the messages of a chat."""

    media_hint: ClassVar[str] = _MEDIA
    prompt_string: Annotated[str, Meta(description="A text with /props's media_marker for each picture.")] | None = None
    multimodal_data: PictureFiles | None = None
    content: Annotated[list[dict[str, Any]], Meta(description="Parts: texts and pictures.")] | None = None


_Inputs = Annotated[
    str | list[str | Id | list[str | Id] | EmbeddingObject] | EmbeddingObject,
    Meta(
        description=f"What to embed: a text, a list of ids and texts, an object, or a list of such: at most {MOST}.",
        extra={"hint": _HINT},
    ),
]


_MESSAGES = Meta(
    min_length=1, description="In place of inputs: one conversation, as the model's template writes it, is embedded."
)


class EmbeddingFields(Fields, kw_only=True):
    """What to embed, and how the vectors shall look."""

    media_hint: ClassVar[str] = _MEDIA
    input: _Inputs | None = None
    content: Annotated[_Inputs, Meta(description="The same; the answer has llama-server's shape.")] | None = None
    messages: Annotated[list[ChatMessage], _MESSAGES] | None = None
    cache_salt: CacheSalt | None = None
    encoding_format: Annotated[
        str, one_of("float", "base64", description="Numbers, or base64 of them as float32, little-endian.")
    ] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20, description="Keep so many of the first values.")] | None = None
    embd_normalize: Annotated[
        int,
        Meta(
            ge=-1,
            le=64,
            description="-1 leaves the length, 0 makes the largest value 32760, p the p-norm 1.",
        ),
    ] = _EUCLIDEAN
    truncate_prompt_tokens: Annotated[Any, unbuilt(send="shorter inputs")] = None


@dataclass(frozen=True)
class EmbeddingRequest:
    """What was asked. `openai`: for its shape."""

    inputs: Owned[list[object]]
    fields: EmbeddingFields
    pooling: Pooling
    openai: bool


class EmbeddingRoutes:
    """Routes of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def openai(self, exchange: Exchange) -> None:
        """Embeddings of inputs, in OpenAI's shape."""
        await self._answer(exchange, partial(self._asked, openai=True))

    async def native(self, exchange: Exchange) -> None:
        """Embeddings of inputs, in llama-server's shape; where nothing is pooled, one of each token."""
        await self._answer(exchange, partial(self._asked, openai=False))

    async def _answer(self, exchange: Exchange, reader: Callable[[Mapping[str, Any]], EmbeddingRequest]) -> None:
        service = self._service
        asked = await service.parse(exchange.body, reader)
        with service.admit():
            async with exchange:
                made = await service.prompt(exchange.body, partial(_prompts, service, asked))
                salt = salt_of(asked.fields.cache_salt, exchange.tenant)  # keys share no pictures
                prompts = [Prompt.of(one.spans, salt) for one in made]
                written = await service.work(partial(_written, service, asked, prompts))
                await exchange.respond(Response(written, media_type="application/json"))

    def _asked(self, body: Mapping[str, Any], *, openai: bool) -> EmbeddingRequest:
        """What a body asks for. Raises FieldError, naming the field."""
        service, fields = self._service, read(body, EmbeddingFields)
        inputs = list(_given(fields, body))
        openai = openai and fields.content is None
        pooling = service.options.pooling or service.model.pooling
        if openai and pooling == "none":
            raise RequestError(
                "--pooling none gives a vector of each token, which OpenAI's shape has no place for",
                hint="ask /embeddings",
            )
        if fields.dimensions is not None and fields.dimensions > service.model.width:
            raise FieldError("dimensions", f"{fields.dimensions}", hint=f"embeddings have {service.model.width}")
        return EmbeddingRequest(Owned(inputs), fields, pooling, openai)


def _given(fields: EmbeddingFields, body: Mapping[str, Any]) -> Iterator[object]:
    """The inputs, from the one field that has them."""
    there = [name for name in ("input", "content", "messages") if getattr(fields, name) is not None]
    if not there:
        raise FieldError("input", "there is none", hint=_HINT)
    if "messages" not in there:
        yield from _listed(getattr(fields, there[0]), there[0])
    elif len(there) > 1:
        raise FieldError("messages", f"there is {there[0]}, too", hint="send one of them")
    else:
        yield conversation({"add_generation_prompt": False, **body}, prefill=False)


def _listed(given: object, name: str) -> Iterator[object]:
    """The inputs: a list of ids, or of ids and texts, is one."""
    if isinstance(given, list) and not any(isinstance(part, int) for part in given):
        if not 0 < len(given) <= MOST:
            raise FieldError(name, f"{len(given)} of them", hint=f"give 1 to {MOST}")
        for number, one in enumerate(given):
            yield _input(one, f"{name}[{number}]")
    else:
        yield _input(given, name)


def _input(given: object, name: str) -> object:
    """A text, an object, or ids and texts."""
    if isinstance(given, list):
        if not given:
            raise FieldError(name, "there is nothing in it", hint=_HINT)
        return pieces_of(given, name)
    if isinstance(given, EmbeddingObject) and (given.content is None) == (given.prompt_string is None):
        raise FieldError(name, "has neither prompt_string nor content, or both", hint=_HINT)
    return given


def _prompts(service: Service, asked: EmbeddingRequest, *, check: Callable[[], None]) -> list[Prompt]:
    """The inputs as rows, and no more of them than a request may have."""
    return counted(prompt_of(service, given, check=check) for given in asked.inputs.take())


def counted(prompts: Iterable[Prompt]) -> list[Prompt]:
    """All of them, made one by one. Raises RequestError where they are more than a request may have."""
    made, tokens = list[Prompt](), 0
    for prompt in prompts:
        tokens += len(prompt)
        if tokens > _MOST_TOKENS:
            raise RequestError(f"the inputs have more than {_MOST_TOKENS} tokens", hint="send them in parts")
        made.append(prompt)
    return made


def prompt_of(service: Service, given: object, *, check: Callable[[], None]) -> Prompt:
    """A text, pieces of it and ids, or an object, as rows."""
    model = service.model
    if isinstance(given, str):
        return model.embedding_prompt(given, check=check)
    if isinstance(given, AskedConversation):
        messages = given.messages.take()
        return model.question(messages, given.options, check=check, budget=given.budget).prompt
    if not isinstance(given, EmbeddingObject):
        assert isinstance(given, tuple)
        return Prompt.of([_ids(model, given, check)])
    budget = budget_of(given).within(USUAL)
    if given.content is not None:
        return model.content(given.content, check=check, budget=budget)
    text = given.prompt_string or ""
    if not given.multimodal_data:
        return Prompt.of([model.tokenizer.encode(text, special=True, add_special=True, check=check)])
    marked = text.replace(service.media_marker, model.picture_marker)
    return model.raw([marked], given.multimodal_data, check=check, budget=budget).prompt


def _ids(model: Model, pieces: Sequence[Piece], check: Callable[[], None]) -> list[int]:
    """Ids as they stand, and those of the texts between."""
    ids: list[int] = []
    for piece in pieces:
        ids += model.tokenizer.encode(piece, first=not ids, check=check) if isinstance(piece, str) else piece
    return ids


def _written(service: Service, asked: EmbeddingRequest, prompts: list[Prompt], *, check: Callable[[], None]) -> bytes:
    """The answer's JSON."""
    fields, model = asked.fields, service.model
    pooled = asked.pooling != "none"
    values = sum(1 if pooled else len(prompt) for prompt in prompts) * (fields.dimensions or model.width)
    if values > _MOST_VALUES and (fields.encoding_format == "float" or not asked.openai):
        raise RequestError(f"{values} numbers of an answer, more than {_MOST_VALUES}", hint="send fewer inputs")
    norm = fields.embd_normalize if pooled else -1
    with service.metrics.reading(prompts):
        found = model.text.pooler.pool(prompts, asked.pooling, check=check)
    made = [shortened(one, fields.dimensions, norm) for one in found]
    if not asked.openai:
        return msgspec.json.encode([{"index": i, "embedding": [*_rows(one)]} for i, one in enumerate(made)])
    tokens = sum(map(len, prompts))
    return msgspec.json.encode(
        {
            "model": service.name,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [entry(one, number, fields.encoding_format) for number, one in enumerate(made)],
        }
    )


def entry(values: Floats, index: int, encoding: Literal["float", "base64"] | str) -> dict[str, object]:
    """One embedding [width], as OpenAI writes it."""
    if encoding == "float":
        return {"object": "embedding", "index": index, "embedding": values.tolist()}
    data = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {"object": "embedding", "index": index, "embedding": data, "encoding_format": encoding}


def _rows(values: Floats) -> Iterator[list[float]]:
    """One list of each vector: of a text, or of each token of it."""
    yield from values.reshape(-1, values.shape[-1]).tolist()
