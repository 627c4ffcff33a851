"""The ASGI application of a server of several models: each request goes to the routes of the model that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Route, Router
from starlette.types import Receive, Scope, Send

from opsin.errors import FieldError
from opsin.serve import openapi
from opsin.serve.app import about, application, described_of
from opsin.serve.body import Body
from opsin.serve.errors import HttpError
from opsin.serve.fields import parse
from opsin.serve.multipart import read_form
from opsin.serve.ollama_routes import OllamaRoutes
from opsin.serve.openapi import Described
from opsin.serve.registry import ModelRegistry
from opsin.serve.registry_routes import ModelFields, RegistryRoutes
from opsin.serve.service import Service

_SMALL: Final = 1 << 16  # bytes of a body that is read within the loop


def build_several(registry: ModelRegistry) -> Starlette:
    """Routes over a registry; whoever builds it closes the registry."""
    routes = RegistryRoutes(registry)
    pattern = next(iter(registry))
    own = [
        *about(registry.state, lambda: written()),
        *(_route(prefix + "/models", routes.list) for prefix in ("/v1", "")),
        _route("/v1/models/{name:path}", routes.one),
        _route("/models/load", routes.load, ModelFields),
        _route("/models/unload", routes.unload, ModelFields),
        _route("/props", routes.props),
        *(_route(prefix + "/health", routes.health) for prefix in ("/v1", "")),
        _route("/livez", routes.live),
        _route("/readyz", routes.ready),
        _route("/api/tags", routes.tags),
        _route("/api/ps", routes.running),
        _route("/api/version", OllamaRoutes(pattern).version),
    ]
    mine = {(one.route.path, method) for one in own for method in one.route.methods or ()}
    others = [one for one in described_of(pattern) if not {(one.route.path, m) for m in one.route.methods or ()} & mine]

    @cache
    def written() -> Mapping[str, Any]:
        return openapi.document([*own, *others], registry.options.prefix)

    forwarding = Route("/{path:path}", Forwarding(registry, others))
    return application([*own], registry.state, forwarding, declared=[one.route.path for one in others])


def _route(path: str, endpoint: Any, *body: type[ModelFields]) -> Described:
    return Described(Route(path, endpoint, methods=["POST" if body else "GET"]), body)


class Forwarding:
    """Leads a request to the routes of the model that it names, in its body or, without one, in `?model=`."""

    def __init__(self, registry: ModelRegistry, described: Sequence[Described]) -> None:
        self._registry, self._described = registry, described
        self._routers: dict[Service, Router] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._match(scope)
        service = next(iter(self._registry)) if found.shared else await self._named(Request(scope, receive))
        await self._router(service)(scope, receive, send)

    def _match(self, scope: Scope) -> Described:
        """What stands under the path. Raises HTTPException 404 and 405."""
        partly = False
        for one in self._described:
            match, _ = one.route.matches(scope)
            if match == Match.FULL:
                return one
            partly |= match == Match.PARTIAL
        raise HTTPException(405 if partly else 404)

    async def _named(self, request: Request) -> Service:
        """The model that it names. Raises FieldError where it names none, HttpError where there is none of the name."""
        name: object = request.query_params.get("model")
        if request.method == "POST":
            body = Body.of(request)
            data = await body.read()
            kind = request.headers.get("content-type", "")
            large = len(data) > _SMALL
            asked = await asyncio.to_thread(model_in, data, kind) if large else model_in(data, kind)
            name = asked or name
            body.put_back(data)
        if not name or not isinstance(name, str):
            what = "there is none" if not name else "it is no text"
            raise FieldError("model", what, hint=f"this server has several: {self._registry.names}")
        service = self._registry.find(name)
        if not (self._registry.autoload or service.loaded or self._registry.places.is_loading(service)):
            raise HttpError(400, f"the model {name!r:.200} is not loaded", hint="POST /models/load loads it")
        return service

    def _router(self, service: Service) -> Router:
        router = self._routers.get(service)
        if router is None:
            routes = [one.route for one in described_of(service)]
            self._routers = {known: made for known, made in self._routers.items() if known in [*self._registry]}
            router = self._routers[service] = Router(routes, redirect_slashes=False)
        return router


class _Named(msgspec.Struct):
    model: Any = None


def model_in(data: bytes | bytearray, content_type: str) -> object:
    """What a body says under "model"; None where it says nothing. Raises HttpError for a body that cannot be read."""
    if not data:
        return None
    if content_type.lower().startswith("multipart/"):
        return read_form(data, content_type).value("model")
    try:
        return msgspec.json.decode(data, type=_Named).model
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return parse(data).get("model")  # it says better what is wrong
