"""What a server of several models tells of them, and their loading and unloading, as llama-server's router has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.serve.body import Body
from opsin.serve.errors import HttpError
from opsin.serve.fields import Fields, parse, read
from opsin.serve.health import told
from opsin.serve.models import ModelRoutes
from opsin.serve.ollama_routes import OllamaRoutes
from opsin.serve.registry import ModelRegistry
from opsin.serve.service import Service
from opsin.serve.usage import FINGERPRINT


class ModelFields(Fields, kw_only=True):
    """A model of several."""

    model: Annotated[str, Meta(description="Its name.", extra={"hint": 'send {"model": "..."}'})]


class RegistryRoutes:
    """Of one server."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    async def list(self, request: Request) -> Response:
        """All models, with whether each is in memory; `?reload=1` looks for new ones."""
        if request.query_params.get("reload", "0") not in ("", "0"):
            await self._registry.reload()
        return JSONResponse({"object": "list", "data": [self._entry(service) for service in self._registry]})

    async def one(self, request: Request) -> Response:
        """The entry of the model of this name."""
        return JSONResponse(self._entry(self._registry.find(request.path_params["name"])))

    async def load(self, request: Request) -> Response:
        """Begin to load a model; /models tells when it is there."""
        self._registry.load(await self._asked(request))
        return JSONResponse({"success": True})

    async def unload(self, request: Request) -> Response:
        """Take a model out of memory when its running answers have ended."""
        self._registry.unload(await self._asked(request))
        return JSONResponse({"success": True})

    async def props(self, request: Request) -> Response:
        """Of the server; with `?model=` of a model, which is loaded if it never was in memory."""
        name = request.query_params.get("model")
        if name:
            service = self._registry.find(name)
            await self._know(service, request)
            return await ModelRoutes(service).props(request)
        return JSONResponse(
            {
                "role": "router",
                "max_instances": self._registry.most,
                "models_autoload": self._registry.autoload,
                "model_alias": "",
                "endpoint_slots": self._registry.options.slots,
                "endpoint_props": False,
                "endpoint_metrics": True,
                "ui": self._registry.options.page,
                "ui_settings": {},
                "build_info": FINGERPRINT,
            }
        )

    async def health(self, request: Request) -> Response:
        """The server is there; models are loaded when they are wanted."""
        return JSONResponse({"status": "ok"})

    async def live(self, request: Request) -> Response:
        """Whether the process can go on; 503 when an engine has died."""
        return told({"engine": self._lives()})

    async def ready(self, request: Request) -> Response:
        """Whether it takes requests now."""
        return told({"engine": self._lives(), "open": not self._registry.state.ending})

    async def tags(self, request: Request) -> Response:
        """All models, in Ollama's shape."""
        return JSONResponse({"models": [self._tag(service) for service in self._registry]})

    async def running(self, request: Request) -> Response:
        """Those in memory, in Ollama's shape."""
        loaded = [OllamaRoutes(service) for service in self._registry if service.loaded]
        return JSONResponse({"models": [routes.loaded_entry() for routes in loaded]})

    async def _know(self, service: Service, request: Request) -> None:
        """It was in memory once. Raises HttpError 400 where nothing is loaded unasked, here or by `?autoload=false`."""
        loads = self._registry.autoload and request.query_params.get("autoload", "true") not in ("0", "false")
        if not service.ready and not loads:
            raise HttpError(400, f"the model {service.name!r:.200} is not loaded", hint="POST /models/load loads it")
        body = Body.of(request)
        try:
            await body.read()
            async with service.known(body):
                pass
        finally:
            body.let_go()

    def _lives(self) -> bool:
        return all(service.engine_lives for service in self._registry)

    async def _asked(self, request: Request) -> Service:
        body = Body.of(request)
        try:
            return self._registry.find(read(parse(await body.read()), ModelFields).model)
        finally:
            body.let_go()

    def _entry(self, service: Service) -> Mapping[str, Any]:
        """What is known: of one that was never in memory its name alone."""
        known = {
            "id": service.name, "aliases": service.aliases, "tags": list(service.options.tags), "object": "model",
            "created": service.state.started, "owned_by": "opsin",
        }  # fmt: skip
        entry = ModelRoutes(service).entry() if service.ready else known
        return {**entry, "status": self._registry.status(service)}

    def _tag(self, service: Service) -> Mapping[str, Any]:
        if service.ready:
            return OllamaRoutes(service).entry()
        path = self._registry.path(service)
        return {"name": service.name, "model": service.name, "details": {"format": "gguf"}, **_of_file(path)}


def _of_file(path: Path | None) -> dict[str, Any]:
    """When it was written, and its size."""
    if path is None or not path.is_file():
        return {}
    stat = path.stat()
    return {"modified_at": datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(), "size": stat.st_size}
