"""The ASGI application: which route leads where."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opsin.errors import OpsinError
from opsin.serve import errors
from opsin.serve.access import AccessMiddleware
from opsin.serve.chat import ChatRoutes
from opsin.serve.completions import CompletionRoutes
from opsin.serve.metrics import TYPE
from opsin.serve.models import ModelRoutes
from opsin.serve.service import Service
from opsin.serve.tokens import TokenRoutes

Endpoint = Callable[[Request], Awaitable[Response]]
ELSEWHERE = (
    *("/v1/responses", "/responses", "/v1/responses/input_tokens", "/responses/input_tokens", "/v1/messages"),
    *("/v1/messages/count_tokens", "/v1/audio/transcriptions", "/audio/transcriptions", "/infill", "/v1/embeddings"),
    *("/embeddings", "/embedding", "/v1/rerank", "/v1/reranking", "/rerank", "/reranking", "/slots/{id:int}"),
)
_PAGE = Path(__file__).parent / "page" / "index.html"


def build_app(service: Service) -> Starlette:
    """Routes over a service; whoever builds it starts and closes the service."""
    talk, tell = ChatRoutes(service), ModelRoutes(service)
    go_on, spell = CompletionRoutes(service), TokenRoutes(service)

    async def health(request: Request) -> Response:
        _ = service.model  # 503 while it loads
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        headers = {"Process-Start-Time-Unix": str(service.started)}
        return Response(service.metrics.text(service.gauges()), media_type=TYPE, headers=headers)

    html = _PAGE.read_bytes()

    async def page(request: Request) -> Response:
        return Response(html, media_type="text/html", headers=_page_headers(html))

    routes = [
        Route("/", page),
        *_both("/health", health, "GET"),
        Route("/metrics", metrics),
        *_both("/models", tell.list, "GET"),
        Route("/v1/models/{name:path}", tell.one),
        Route("/props", tell.props, methods=["GET", "POST"]),
        Route("/slots", tell.slots),
        Route("/lora-adapters", tell.adapters, methods=["GET", "POST"]),
        *_both("/chat/completions", talk.complete, "POST"),
        *_both("/chat/completions/input_tokens", talk.count, "POST"),
        Route("/apply-template", talk.template, methods=["POST"]),
        Route("/v1/completions", go_on.openai, methods=["POST"]),
        Route("/completions", go_on.native, methods=["POST"]),
        Route("/completion", go_on.native, methods=["POST"]),
        Route("/tokenize", spell.tokenize, methods=["POST"]),
        Route("/detokenize", spell.detokenize, methods=["POST"]),
        *(Route(path, tell.elsewhere, methods=["GET", "POST"]) for path in ELSEWHERE),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(AccessMiddleware, options=service.options, ended=service.ended)],
        exception_handlers={
            OpsinError: errors.on_opsin_error,
            HTTPException: errors.on_http_error,
        },
    )


def _page_headers(html: bytes) -> dict[str, str]:
    """Only the script and the style that stand in the page may work, and they may ask only this server."""
    hashes = {}
    for tag in ("script", "style"):
        inside = html.partition(f"<{tag}>".encode())[2].partition(f"</{tag}>".encode())[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(inside).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _both(path: str, endpoint: Endpoint, method: str) -> list[Route]:
    """A route under OpenAI's prefix and, as llama-server has it, without."""
    return [Route(prefix + path, endpoint, methods=[method]) for prefix in ("/v1", "")]
