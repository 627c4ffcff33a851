"""Ranking documents: /v1/rerank and /rerank, in the shapes of Jina and, for `texts`, of TEI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from opsin.api.ranking import RankedDocument, ranked
from opsin.errors import FieldError
from opsin.serve.body import Owned
from opsin.serve.embeddings import MOST, counted
from opsin.serve.exchange import Exchange
from opsin.serve.fields import Fields, read, unbuilt
from opsin.serve.service import Service
from opsin.spans import Prompt

_HINT = 'give "documents": ["one", "two"]'


class Document(Fields, kw_only=True):
    """A document as an object."""

    text: Annotated[str, Meta(description="What it says.", extra={"hint": _HINT})]


class RerankFields(Fields, kw_only=True):
    """What to rank, and by what."""

    query: Annotated[str, Meta(description="What is looked for.", extra={"hint": "give a text"})]
    documents: (
        Annotated[
            list[str | Document], Meta(description=f"Texts that may answer it, at most {MOST}.", extra={"hint": _HINT})
        ]
        | None
    ) = None
    texts: (
        Annotated[list[str], Meta(description="The same; the answer has TEI's shape.", extra={"hint": _HINT})] | None
    ) = None
    top_n: Annotated[int, Meta(ge=1, le=(1 << 31) - 1, description="Tell so many of the best.")] | None = None
    return_documents: Annotated[bool, Meta(description="Tell what each document says.")] = False
    return_text: Annotated[bool, Meta(description="The same of texts.")] = False
    truncate_prompt_tokens: Annotated[Any, unbuilt(send="shorter documents")] = None


@dataclass(frozen=True)
class RerankRequest:
    """What was asked. `tei`: for its shape; `tells`: with what documents say."""

    query: str
    documents: Owned[list[str]]
    most: int | None
    tei: bool
    tells: bool


class RerankRoutes:
    """Routes of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def rerank(self, exchange: Exchange) -> None:
        """How well documents answer a query, from the best to the worst."""
        service = self._service
        asked = await service.parse(exchange.body, _asked)
        with service.admit():
            async with exchange:
                documents = asked.documents.take()
                prompts = await service.prompt(exchange.body, partial(_prompts, service, asked.query, documents))
                found = await service.work(partial(_ranked, service, prompts))
                await exchange.value(self._told(asked, found[: asked.most], documents, sum(map(len, prompts))))

    def _told(self, asked: RerankRequest, found: list[RankedDocument], documents: list[str], tokens: int) -> object:
        if asked.tei:
            return [
                {"index": one.index, "score": one.score, **({"text": documents[one.index]} if asked.tells else {})}
                for one in found
            ]
        return {
            "model": self._service.name,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [
                {
                    "index": one.index,
                    "relevance_score": one.score,
                    **({"document": {"text": documents[one.index]}} if asked.tells else {}),
                }
                for one in found
            ],
        }


def _asked(body: Mapping[str, Any]) -> RerankRequest:
    fields = read(body, RerankFields)
    tei = fields.documents is None and fields.texts is not None
    name, given = ("texts", fields.texts or []) if tei else ("documents", fields.documents or [])
    if not 0 < len(given) <= MOST:
        raise FieldError(name, f"{len(given)} of them", hint=f"give 1 to {MOST} texts")
    documents = [one.text if isinstance(one, Document) else one for one in given]
    return RerankRequest(
        fields.query, Owned(documents), fields.top_n, tei, fields.return_text if tei else fields.return_documents
    )


def _prompts(service: Service, query: str, documents: list[str], *, check: Callable[[], None]) -> list[Prompt]:
    return counted(service.model.ranking_prompts(query, documents, check=check))


def _ranked(service: Service, prompts: list[Prompt], *, check: Callable[[], None]) -> list[RankedDocument]:
    with service.metrics.reading(prompts):
        return ranked(service.model.scores(prompts, check=check))
