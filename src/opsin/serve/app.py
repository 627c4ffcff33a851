"""The ASGI application: which route leads where."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from opsin.errors import OpsinError
from opsin.serve import anthropic, framing, ollama, openapi
from opsin.serve.access import AccessMiddleware
from opsin.serve.anthropic import AnthropicFields
from opsin.serve.anthropic_format import ANTHROPIC_CHAT
from opsin.serve.chat import OPENAI_CHAT, ChatFields, ChatRoutes
from opsin.serve.completions import CompletionFields, CompletionRoutes
from opsin.serve.conversation import Conversation
from opsin.serve.embeddings import EmbeddingFields, EmbeddingRoutes
from opsin.serve.exchange import AnswerRoute, Exchange
from opsin.serve.fields import Fields
from opsin.serve.file_routes import FORM, FileRoutes
from opsin.serve.health import HealthRoutes
from opsin.serve.key_header import KeyHeaderMiddleware
from opsin.serve.metrics import TYPE
from opsin.serve.models import ModelRoutes
from opsin.serve.ollama import OllamaChatFields, OllamaGenerateFields
from opsin.serve.ollama_embeddings import OllamaEmbeddingFields, OllamaEmbeddingRoutes, OllamaEmbedFields
from opsin.serve.ollama_routes import OllamaRoutes
from opsin.serve.openapi import Described
from opsin.serve.options import Options
from opsin.serve.page_files import PageRoutes, guarded
from opsin.serve.raw_prompts import Infill, Prompts
from opsin.serve.record import Record, RecordMiddleware
from opsin.serve.rerank import RerankFields, RerankRoutes
from opsin.serve.responses import ResponsesFields
from opsin.serve.responses_routes import ResponseRoutes
from opsin.serve.server_state import ServerState
from opsin.serve.service import Service
from opsin.serve.slot_routes import SlotRoutes
from opsin.serve.tokens import DetokenizeRequest, TokenizeRequest, TokenRoutes
from opsin.serve.transcriptions import FORM as SPEECH
from opsin.serve.transcriptions import TranscriptionRoutes

Endpoint = Callable[[Request], Awaitable[Response]] | AnswerRoute
_FRAMINGS = {"/v1/messages": anthropic.FRAMING, "/api/": ollama.FRAMING}
_MODEL, _RESPONSE, _FILE = "/v1/models/{name:path}", "/v1/responses/{id}", "/v1/files/{id}"
_PAGE_FILE, _SLOT = "/page/{file:path}", "/slots/{id:int}"
_NAMED = (_MODEL, _RESPONSE, _FILE, _PAGE_FILE, _SLOT)  # what begins so is counted under this name


def build_app(service: Service) -> Starlette:
    """Routes over a service; whoever builds it starts and closes the service."""

    @cache
    def written(ready: bool) -> Mapping[str, Any]:
        return _document(described, service)

    described = [*about(service.state, lambda: written(service.ready)), *described_of(service)]
    return application(described, service.state)


def about(state: ServerState, written: Callable[[], Mapping[str, Any]]) -> list[Described]:
    """What the server shows of itself; `written` gives its document."""

    async def metrics(request: Request) -> Response:
        """Counters, gauges and histograms for Prometheus."""
        headers = {"Process-Start-Time-Unix": str(state.started)}
        return Response(state.metrics.text(), media_type=TYPE, headers=headers)

    async def api(request: Request) -> Response:
        """This document."""
        return JSONResponse(written())

    async def docs(request: Request) -> Response:
        """The same as a page."""
        manual = openapi.page(written())
        return Response(manual, media_type="text/html", headers=_manual_headers(manual))

    return [
        *_page(state.options),
        *_get("/docs", docs),
        *_get("/openapi.json", api),
        *_get("/metrics", metrics),
    ]


def described_of(service: Service) -> list[Described]:
    """All that is asked of one model."""
    talk, tell = ChatRoutes(service, OPENAI_CHAT), ModelRoutes(service)
    go_on, spell, probe = CompletionRoutes(service), TokenRoutes(service), HealthRoutes(service)
    vectors, order = EmbeddingRoutes(service), RerankRoutes(service)

    def answering(handler: Callable[[Exchange], Awaitable[None]]) -> AnswerRoute:
        return AnswerRoute(handler, service.options, service.state.ended, service.held)

    return [
        *_both("/health", probe.health, "GET"),
        *_get("/livez", probe.live),
        *_get("/readyz", probe.ready),
        *_both("/models", tell.list, "GET"),
        *_get(_MODEL, tell.one),
        *_get("/props", tell.props),
        Described(Route("/props", tell.props, methods=["POST"]), built=False),
        *_get("/slots", tell.slots),
        *_post(_SLOT, answering(SlotRoutes(service).act)),
        *_get("/lora-adapters", tell.adapters),
        Described(Route("/lora-adapters", tell.adapters, methods=["POST"]), built=False),
        *_both("/chat/completions", answering(talk.complete), "POST", Conversation, ChatFields),
        *_both("/chat/completions/input_tokens", answering(talk.count), "POST", Conversation),
        *_post("/apply-template", answering(talk.template), Conversation),
        *_others(service, answering),
        *_post("/v1/embeddings", answering(vectors.openai), EmbeddingFields),
        *_post("/embeddings", answering(vectors.native), EmbeddingFields),
        *_post("/embedding", answering(vectors.native), EmbeddingFields),
        *_both("/rerank", answering(order.rerank), "POST", RerankFields),
        *_both("/reranking", answering(order.rerank), "POST", RerankFields),
        *_post("/v1/completions", answering(go_on.openai), Prompts, CompletionFields),
        *_post("/completions", answering(go_on.native), Prompts, CompletionFields),
        *_post("/completion", answering(go_on.native), Prompts, CompletionFields),
        *_post("/infill", answering(go_on.infill), Infill, CompletionFields),
        *_post("/tokenize", answering(spell.tokenize), TokenizeRequest),
        *_get("/tokenizer_info", answering(spell.info)),
        *_post("/detokenize", answering(spell.detokenize), DetokenizeRequest),
    ]


def application(
    described: Sequence[Described], state: ServerState, *others: BaseRoute, declared: Collection[str] = ()
) -> Starlette:
    """These routes, and then others, behind all that stands before every route. `declared`: paths of the others."""
    declared = {one.route.path for one in described} | {*declared}

    def ended(record: Record) -> None:
        state.record(record, _route(record.path.removeprefix(state.options.prefix), declared))

    app = Starlette(
        routes=[*(one.route for one in described), *others],
        middleware=[
            Middleware(RecordMiddleware, proxies=state.options.proxies, ended=ended),
            Middleware(AccessMiddleware, options=state.options, ended=state.ended, keys=state.keys, framings=_FRAMINGS),
            *([Middleware(KeyHeaderMiddleware)] if state.options.tells_key else []),
        ],
        exception_handlers={OpsinError: framing.on_opsin_error, HTTPException: framing.on_http_error},
    )
    app.router.redirect_slashes = False  # few clients send a body again
    return app


def _document(described: Sequence[Described], service: Service) -> Mapping[str, Any]:
    """What the server can be asked for: without what its model cannot do, once that is there."""
    if not service.ready:
        return openapi.document(described, service.options.prefix)
    offered = [one for one in described if service.card.infills or one.route.path != "/infill"]
    return openapi.document(offered, service.options.prefix, service.names)


def _route(path: str, declared: Collection[str]) -> str:
    """The declared route of a path: there are not more of them than are declared, whatever strangers send."""
    if path in declared:
        return path
    return next((route for route in _NAMED if path.startswith(route.partition("{")[0])), "other")


def _manual_headers(html: bytes) -> dict[str, str]:
    """Only the style that stands in the manual may work, and nothing else."""
    style = html.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return guarded(
        f"default-src 'none'; script-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _page(options: Options) -> list[Described]:
    """The page and its files, unless the operator wants none."""
    if not options.page:
        return []
    routes = PageRoutes()
    return [*_get("/", routes.page), *_get(_PAGE_FILE, routes.file)]


def _others(
    service: Service, answering: Callable[[Callable[[Exchange], Awaitable[None]]], AnswerRoute]
) -> list[Described]:
    """Conversations in other protocols than that of chats, and what is stored for conversations."""
    respond, messages, ollamas = ResponseRoutes(service), ChatRoutes(service, ANTHROPIC_CHAT), OllamaRoutes(service)
    files, spaces = FileRoutes(service), OllamaEmbeddingRoutes(service)
    storing = AnswerRoute(files.create, service.options, service.state.ended, lambda body: nullcontext())
    showing = AnswerRoute(ollamas.show, service.options, service.state.ended, service.known)
    return [
        *_both("/responses", answering(respond.chats.complete), "POST", ResponsesFields, ChatFields),
        *_both("/responses/input_tokens", answering(respond.chats.count), "POST", ResponsesFields),
        Described(Route(_RESPONSE, respond.one, methods=["GET", "DELETE"]), shared=True),
        Described(Route("/v1/files", storing, methods=["POST"]), form=FORM, shared=True),
        Described(Route("/v1/files", files.list, methods=["GET"]), shared=True),
        Described(Route(_FILE, files.one, methods=["GET", "DELETE"]), shared=True),
        Described(Route(_FILE + "/content", files.content, methods=["GET"]), shared=True),
        *_post("/v1/messages", answering(messages.complete), AnthropicFields, ChatFields),
        *_post("/v1/messages/count_tokens", answering(messages.count), AnthropicFields),
        *_post("/api/chat", answering(ollamas.chat), OllamaChatFields),
        *_post("/api/generate", answering(ollamas.generate), OllamaGenerateFields),
        *_spoken(service, answering),
        *_post("/api/embed", answering(spaces.embed), OllamaEmbedFields),
        *_post("/api/embeddings", answering(spaces.one), OllamaEmbeddingFields),
        *_get("/api/tags", ollamas.tags),
        *_get("/api/ps", ollamas.running),
        *_get("/api/version", ollamas.version),
        *_post("/api/show", showing),
    ]


def _spoken(
    service: Service, answering: Callable[[Callable[[Exchange], Awaitable[None]]], AnswerRoute]
) -> list[Described]:
    """What is asked of recordings."""
    speech = TranscriptionRoutes(service)
    asked = {"/audio/transcriptions": speech.transcribe, "/audio/translations": speech.translate}
    return [
        Described(Route(prefix + path, answering(handler), methods=["POST"]), form=SPEECH)
        for path, handler in asked.items()
        for prefix in ("/v1", "")
    ]


def _get(path: str, endpoint: Endpoint) -> list[Described]:
    return [Described(Route(path, endpoint, methods=["GET"]))]


def _post(path: str, endpoint: Endpoint, *body: type[Fields]) -> list[Described]:
    return [Described(Route(path, endpoint, methods=["POST"]), body)]


def _both(path: str, endpoint: Endpoint, method: str, *body: type[Fields]) -> list[Described]:
    """A route under OpenAI's prefix and, as llama-server has it, without."""
    return [Described(Route(prefix + path, endpoint, methods=[method]), body) for prefix in ("/v1", "")]
