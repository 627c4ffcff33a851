"""Several models of one server: by their names, in memory only while they are wanted.

Thread: the event loop's, but for `sources`, which may look into folders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsin.api import Model
from opsin.serve.errors import HttpError, heard
from opsin.serve.options import Options
from opsin.serve.places import Places
from opsin.serve.server_state import ServerState
from opsin.serve.service import Service

_TOLD = 20  # names in an error


@dataclass(frozen=True)
class ModelSource:
    """One model of several.

    Attributes:
        name: what it is called.
        options: of the server, and what holds of this model alone; other names of it stand in its name.
        origin: what it is made of: one that is listed again with an equal origin is the same.
        path: its file or folder; None where it comes from a store.
        load: reads it, on a thread.
        need: bytes that it will take, on a thread; raises what is known to be wrong with it.
    """

    name: str
    options: Options
    origin: object
    path: Path | None
    load: Callable[[], Model]
    need: Callable[[], int]


def spellings(name: str) -> tuple[str, str]:
    """How a model may be called: by its name, or with Ollama's :latest behind it."""
    return name, name.removesuffix(":latest")


class ModelRegistry:
    """All models of a server.

    Args:
        options: of the server.
        sources: lists the models; again where somebody asks for that.
        most: models in memory at once.
        free: bytes that there are for another one, after those that are loaded need so many.
        autoload: whether a request loads its model; else only /models/load does.
    """

    def __init__(
        self, options: Options, sources: Callable[[], Sequence[ModelSource]], *, most: int,
        free: Callable[[int], int] | None = None, autoload: bool = True,
    ) -> None:  # fmt: skip
        self.options, self.state, self.most, self.autoload = options, ServerState(options), most, autoload
        self.places = Places(most, free=free, idle_seconds=options.sleep_seconds)
        self._sources = sources
        self._listed: dict[str, tuple[ModelSource, Service]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._list(sources())

    def __iter__(self) -> Iterator[Service]:
        return iter([service for _, service in self._listed.values()])

    def find(self, name: str) -> Service:
        """The model of a name, which may end with Ollama's :latest. Raises HttpError 404."""
        for asked in spellings(name):
            for service in self:
                if asked in service.aliases:
                    return service
        raise HttpError(404, f"there is no model {name!r:.200}", hint=f"this server has {self.names}")

    @property
    def names(self) -> str:
        """What there is, for a person."""
        names = list(self._listed)
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        return ", ".join(names[:_TOLD]) + more

    def path(self, service: Service) -> Path | None:
        """Where its file or folder is."""
        return self._listed[service.label][0].path

    def status(self, service: Service) -> dict[str, object]:
        """Whether it is in memory, in the words of llama-server's router."""
        if service.loaded:
            return {"value": "loaded"}
        if self.places.is_loading(service):
            return {"value": "loading"}
        failure = self.places.failure(service)
        failed = {} if failure is None else {"failed": True, "exit_code": failure.exit_code}
        return {"value": "unloaded", **failed}

    async def reload(self) -> None:
        """List the models anew. One that is listed no longer goes when nobody is inside."""
        self._list(await asyncio.to_thread(self._sources))

    def load(self, service: Service) -> None:
        """Begin to load it, whoever wants it."""
        self.places.forget_failure(service)
        self._do(self._enter(service))

    def unload(self, service: Service) -> None:
        """Take it out of memory when nobody is inside any more."""
        self._do(self.places.drop(service))

    @property
    def active(self) -> int:
        """Answers that run or wait."""
        return sum(service.active for service in self)

    async def start(self) -> None:
        """Nothing is loaded before somebody wants it."""

    async def watch(self, seconds: float = 10.0) -> None:
        """Look for what is held while nobody is inside, now and then."""
        while True:
            await asyncio.sleep(seconds)
            for service in self:
                service.check_leaks()

    def check(self, seconds: float = 600.0) -> None:
        """See `Service.check`, of each model."""
        for service in self:
            service.check(seconds)

    async def drain(self, seconds: float) -> bool:
        """See `Service.drain`."""
        return await self.state.drain(lambda: self.active, seconds)

    async def close(self) -> None:
        """End all answers and give all memory back."""
        for errand in self._errands:
            errand.cancel()
        await self.places.close()
        for service in self:
            await service.close()
        self.state.close()

    def _list(self, sources: Sequence[ModelSource]) -> None:
        before, self._listed = self._listed, {}
        for source in sources:
            known = before.get(source.name)
            if known is not None and known[0].origin == source.origin:
                self._listed[source.name] = before.pop(source.name)
                continue
            service = Service(
                source.options, source.load, need=source.need, state=self.state, places=self.places, label=source.name
            )
            self._listed[source.name] = source, service
        for _, service in before.values():
            self._do(self._retire(service))

    async def _retire(self, service: Service) -> None:
        await self.places.drop(service)
        await service.close()

    async def _enter(self, service: Service) -> None:
        try:
            await self.places.enter(service)
        except Exception as error:  # noqa: BLE001 - its status tells
            heard(error)
            return
        self.places.leave(service)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        errand = asyncio.ensure_future(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)
