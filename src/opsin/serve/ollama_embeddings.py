"""/api/embed and the older /api/embeddings, as Ollama has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

from msgspec import Meta

from opsin.api.embedding import L2, shortened
from opsin.arrays import Floats
from opsin.errors import ContextError, FieldError, RequestError
from opsin.serve.embeddings import MOST, counted
from opsin.serve.exchange import Exchange
from opsin.serve.fields import Fields, read
from opsin.serve.service import Service
from opsin.spans import Prompt

_CHARACTERS = 256  # that a token has at most, of any text that is worth cutting


class OllamaEmbedFields(Fields, kw_only=True):
    """Texts to embed."""

    input: Annotated[str | list[str], Meta(description=f"A text, or several: at most {MOST}.")] = []
    truncate: Annotated[bool, Meta(description="Cut texts that are too long, rather than to refuse them.")] = True
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20, description="Keep so many of the first values.")] | None = None


class OllamaEmbeddingFields(Fields, kw_only=True):
    """A text to embed."""

    prompt: Annotated[str, Meta(description="The text.")] = ""


class OllamaEmbeddingRoutes:
    """Routes of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def embed(self, exchange: Exchange) -> None:
        """Embeddings of texts, of length 1, in Ollama's shape."""
        started, service = time.perf_counter_ns(), self._service
        asked = await service.parse(exchange.body, lambda body: read(body, OllamaEmbedFields))
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if len(texts) > MOST:
            raise FieldError("input", f"{len(texts)} of them", hint=f"give at most {MOST}")
        if asked.dimensions is not None:
            service.model.check_dimensions(asked.dimensions)
        made, tokens = await self._made(exchange, texts, truncate=asked.truncate)
        vectors = [shortened(one, asked.dimensions, L2).tolist() for one in made]
        await exchange.value(
            {
                "model": service.name,
                "embeddings": vectors,
                "total_duration": time.perf_counter_ns() - started,
                "load_duration": 0,
                "prompt_eval_count": tokens,
            }
        )

    async def one(self, exchange: Exchange) -> None:
        """The embedding of one text, not normalised, in Ollama's older shape."""
        asked = await self._service.parse(exchange.body, lambda body: read(body, OllamaEmbeddingFields))
        made, _ = await self._made(exchange, [asked.prompt] if asked.prompt else [], truncate=True)
        await exchange.value({"embedding": made[0].tolist() if made else []})

    async def _made(self, exchange: Exchange, texts: list[str], *, truncate: bool) -> tuple[list[Floats], int]:
        """Embeddings of texts, and how many tokens these have."""
        service = self._service
        with service.admit():
            async with exchange:
                prompts = await service.prompt(exchange.body, partial(_prompts, service, texts, truncate))
                made = await service.work(partial(_pooled, service, prompts))
        return made, sum(map(len, prompts))


def _prompts(service: Service, texts: list[str], truncate: bool, *, check: Callable[[], None]) -> list[Prompt]:
    return counted(_prompt(service, text, truncate, check) for text in texts)


def _prompt(service: Service, text: str, truncate: bool, check: Callable[[], None]) -> Prompt:
    check()
    model = service.model
    try:
        prompt = model.embedding_prompt(text, check=check)
        if len(prompt) <= model.context:
            return prompt
    except ContextError:
        pass
    if not truncate:
        raise RequestError("the input length exceeds the context length", hint="send it in parts")
    ids = model.tokenizer.encode(text[: _CHARACTERS * model.context], add_special=True, check=check)
    behind = [*model.tokenizer.behind] if len(ids) > model.context else []
    return Prompt.of([[*ids[: model.context - len(behind)], *behind]])


def _pooled(service: Service, prompts: list[Prompt], *, check: Callable[[], None]) -> list[Floats]:
    pooling = service.options.pooling or service.model.pooling
    pooling = service.model.pooling if pooling == "none" else pooling
    with service.metrics.reading(prompts):
        return service.model.text.pooler.pool(prompts, pooling, check=check)
