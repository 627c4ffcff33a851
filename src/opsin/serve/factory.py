"""The ASGI application for any host: it loads its model when it is started, and ends with its host.

    OPSIN_SERVE_MODEL=model.gguf uvicorn --factory opsin.serve.factory:from_environment

A host listens by itself: where it does, who speaks TLS and how long a head may take are its own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from starlette.applications import Starlette

import opsin
from opsin.api import Model
from opsin.config import expanded, factory_variables
from opsin.errors import RequestError
from opsin.media.fetch import FetchRules
from opsin.serve.app import build_app
from opsin.serve.keys import ApiKey
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry, ModelSource
from opsin.serve.service import Service
from opsin.serve.several import build_several

_ANYWHERE: Final = "0.0.0.0"  # who reaches the host from where is not known here: no name is taken for our own
_SEQUENCES: Final = 32
_MOST: Final = 4  # models in memory at once


SeenBy = Callable[[Options], Options]


def _as_they_are(options: Options) -> Options:
    return options


class Served(Protocol):
    """What a host serves, complete when made; it can be sent to another process."""

    @property
    def options(self) -> Options: ...

    @property
    def names(self) -> Mapping[str, str]:
        """Each that a request may say, and what its model is called; none of one model alone: nobody names it."""
        ...

    @property
    def most(self) -> int:
        """Models in memory at once."""
        ...

    def service(self, seen: SeenBy = _as_they_are) -> Service | ModelRegistry:
        """Serve it, with options as somebody sees them who serves a part of it."""
        ...


@dataclass(frozen=True)
class ServedModel:
    """One model.

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

    @property
    def names(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def most(self) -> int:
        """This one."""
        return 1

    def service(self, seen: SeenBy = _as_they_are) -> Service:
        """Of this model."""
        return Service(seen(self.options), self.load)


@dataclass(frozen=True)
class ServedModels:
    """Several models, each in memory while it is wanted.

    Attributes:
        options: of the server.
        sources: what each is made of.
        most: of them that are in memory at once.
        free: bytes that there are for another one, after those that are loaded need so many; None does not count.
    """

    options: Options
    sources: tuple[ModelSource, ...]
    most: int
    free: Callable[[int], int] | None = None

    @classmethod
    def read(cls, settings: Mapping[str, object]) -> ServedModels:
        """Of settings as `ServedModel.read` takes them, with `models`: names, and what holds of each of these alone.

        `models_max` is `most`. Raises RequestError.
        """
        models = settings["models"]
        if "model" in settings or "mmproj" in settings:
            raise RequestError("a model beside several", hint="write it below models, with a name")
        if not isinstance(models, Mapping) or not models:
            raise RequestError("the setting models names none", hint="write models: {NAME: {model: FILE}}")
        usual = {name: value for name, value in settings.items() if name not in ("models", "models_max")}
        most = _taken("models_max", settings.get("models_max", _MOST), _number)
        sources = []
        for name, own in models.items():
            if not isinstance(own, Mapping) or not {"model"} <= set(own) <= set(_LOADING):
                hint = f"give its model, and what you want of {', '.join(_LOADING)}"
                raise RequestError(f"the settings of the model {str(name)!r:.80}", hint=hint)
            one = ServedModel.read({**usual, **own})
            origin = tuple(sorted((key, str(value)) for key, value in own.items()))
            sources.append(ModelSource(str(name), replace(one.options, name=None), origin, None, one.load, _uncounted))
        return cls(ServedModel.read(usual).options, tuple(sources), max(1, most))

    @property
    def names(self) -> Mapping[str, str]:
        """As `Service.aliases` has them."""
        others = {name.strip(): one.name for one in self.sources for name in (one.options.name or "").split(",")}
        return {one.name: one.name for one in self.sources} | {name: own for name, own in others.items() if name}

    def service(self, seen: SeenBy = _as_they_are) -> ModelRegistry:
        """Of these models."""
        sources = [replace(source, options=seen(source.options)) for source in self.sources]
        return ModelRegistry(seen(self.options), lambda: sources, most=self.most, free=self.free)


def app_of(service: Service | ModelRegistry) -> Starlette:
    """Routes over what is served."""
    return build_app(service) if isinstance(service, Service) else build_several(service)


def app(served: Served) -> Starlette:
    """An application that has its model when its lifespan has begun; a failure to load it ends the host.

    Before its end it says that it is not ready, and running answers have `drain_seconds`.
    """
    service = served.service()
    made = app_of(service)
    made.router.lifespan_context = lambda _: living(service)
    return made


def from_environment() -> Starlette:
    """Of the variables OPSIN_SERVE_MODEL, OPSIN_SERVE_API_KEY and so on: the names of `ServedModel.read`."""
    return app(ServedModel.read(factory_variables()))


@asynccontextmanager
async def living(service: Service | ModelRegistry) -> AsyncIterator[None]:
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


def _uncounted() -> int:
    return 0


def _load(settings: Mapping[str, Any], rules: FetchRules) -> Model:
    return opsin.load(
        settings.get("model"), rules=rules, **{name: settings[name] for name in settings if name != "model"}
    )
