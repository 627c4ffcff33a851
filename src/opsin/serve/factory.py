"""The ASGI application for any host: it loads its model when it is started, and ends with its host.

    OPSIN_SERVE_MODEL=model.gguf uvicorn --factory opsin.serve.factory:from_environment

A host listens by itself: where it does, who speaks TLS and how long a head may take are its own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette

import opsin
from opsin.api import Model
from opsin.config import expanded, factory_variables
from opsin.errors import RequestError
from opsin.media.fetch import FetchRules
from opsin.serve.app import build_app
from opsin.serve.keys import ApiKey
from opsin.serve.options import Options
from opsin.serve.service import Service

_ANYWHERE: Final = "0.0.0.0"  # who reaches the host from where is not known here: no name is taken for our own
_SEQUENCES: Final = 32


@dataclass(frozen=True)
class ServedModel:
    """What a host serves, complete when made; it can be sent to another process.

    Attributes:
        options: of the server. Where it listens says only how it is reached.
        load: reads the model.
    """

    options: Options
    load: Callable[[], Model]

    @classmethod
    def read(cls, settings: Mapping[str, object]) -> ServedModel:
        """Of flat settings, texts or numbers: of a command line, a YAML file or the environment.

        Without a model it is the small one that comes with opsin. Raises RequestError for a name that there is not, and
        for a value that cannot be taken.
        """
        unknown = sorted(set(settings) - set(_LOADING) - set(_SERVING))
        if unknown:
            known = ", ".join((*_LOADING, *_SERVING))
            raise RequestError(f"there is no setting {unknown[0]!r:.80}", hint=f"there are {known}")
        loading = {name: _taken(name, settings[name], read) for name, read in _LOADING.items() if name in settings}
        serving = {field: _taken(name, settings[name], read) for name, (field, read) in _SERVING.items()
                   if name in settings}  # fmt: skip
        options = Options(**{"host": _ANYWHERE, **serving})
        return cls(options, partial(_load, {"sequences": _SEQUENCES, **loading}, options.media))


def app(served: ServedModel) -> Starlette:
    """An application that has its model when its lifespan has begun; a failure to load it ends the host.

    Before its end it says that it is not ready, and running answers have `drain_seconds`.
    """
    service = Service(served.options, served.load)
    made = build_app(service)
    made.router.lifespan_context = lambda _: living(service)
    return made


def from_environment() -> Starlette:
    """Of the variables OPSIN_SERVE_MODEL, OPSIN_SERVE_API_KEY and so on: the names of `ServedModel.read`."""
    return app(ServedModel.read(factory_variables()))


@asynccontextmanager
async def living(service: Service) -> AsyncIterator[None]:
    """While its host is up: the model is there."""
    await service.start()
    watching = asyncio.ensure_future(service.watch())
    try:
        yield
    finally:
        watching.cancel()
        await service.drain(service.options.drain_seconds)
        await service.close()


def _taken(name: str, value: object, read: Callable[[str], Any]) -> Any:
    try:
        return read(str(value))
    except ValueError:
        raise RequestError(f"the setting {name} is {str(value)!r:.80}", hint="give a number from 0 on") from None


def _number(text: str) -> int:
    """Raises ValueError."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def _place(text: str) -> object:
    """A file, or what is no path: hf:REPO."""
    return text if text.startswith(("hf:", "ollama:")) else expanded(text)


def _megabytes(text: str) -> int:
    return _number(text) << 20


def _keys(text: str) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(part.strip()) for part in text.split(","))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_LOADING: Final[Mapping[str, Callable[[str], Any]]] = {
    "model": _place, "mmproj": expanded, "context": _number, "threads": _number, "sequences": _number,
}  # fmt: skip
_SERVING: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "host": ("host", str), "port": ("port", _number), "name": ("name", str), "api_key": ("keys", _keys),
    "allow_origin": ("origins", _listed), "allow_host": ("hosts", _listed), "prefix": ("prefix", str),
    "max_body": ("body_bytes", _megabytes), "max_requests": ("requests", _number), "timeout": ("seconds", _number),
    "drain_seconds": ("drain_seconds", _number), "access_log": ("access_log", str),
    "remote_media": ("media", lambda text: FetchRules(remote=bool(_number(text)))),
}  # fmt: skip


def _load(settings: Mapping[str, Any], rules: FetchRules) -> Model:
    return opsin.load(
        settings.get("model"), rules=rules, **{name: settings[name] for name in settings if name != "model"}
    )
