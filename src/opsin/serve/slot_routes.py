"""POST /slots/N?action=save, restore or erase, as llama-server has it: what the cache holds of the last answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

from msgspec import Meta

from opsin.api import Model
from opsin.api.row_files import Restored, erase_rows, restore_rows, save_rows
from opsin.errors import FileError, RequestError
from opsin.serve.errors import HttpError, log
from opsin.serve.exchange import Exchange
from opsin.serve.fields import Fields, read
from opsin.serve.prompt_fields import is_of
from opsin.serve.service import Service
from opsin.spans import Prompt

T = TypeVar("T")
_NAME: Final = re.compile(r"(?!\.)[\w.() -]{1,128}(?<![. ])")
_AGAIN_SECONDS: Final = 0.05


class SlotFile(Fields, kw_only=True):
    """Where to save a slot, or restore it from."""

    filename: Annotated[str, Meta(description="A name, without a folder.")]


class SlotRoutes:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def act(self, exchange: Exchange) -> None:
        """Save what the cache holds of the last answer in a place, restore it, or erase it."""
        service, request = self._service, exchange.request
        if service.options.slot_path is None:
            hint = "start it with --slot-save-path DIR"
            raise HttpError(501, "this server does not save slots", hint=hint)
        slot, action = request.path_params["id"], request.query_params.get("action")
        if action not in ("save", "restore", "erase"):
            raise HttpError(400, f"there is no action {action!r:.40}", hint="give ?action=save, restore or erase")
        if slot >= service.model.sequences:
            raise HttpError(400, f"there is no slot {slot}", hint=f"give 0 to {service.model.sequences - 1}")
        name = "" if action == "erase" else await service.parse(exchange.body, lambda body: _name(read(body, SlotFile)))
        path = service.options.slot_path / name
        with service.admit():
            async with exchange:
                while service.slots.runs(slot):
                    await asyncio.sleep(_AGAIN_SECONDS)
                start = time.perf_counter()
                if action == "save":
                    told = await self._save(slot, path, exchange.tenant)
                elif action == "restore":
                    told = await self._restore(slot, path)
                else:
                    told = {"n_erased": await self._erase(slot, exchange.tenant)}
                if action != "erase":
                    told |= {"filename": name, "timings": {f"{action}_ms": (time.perf_counter() - start) * 1e3}}
                await exchange.value({"id_slot": slot, **told})

    async def _save(self, slot: int, path: Path, tenant: str) -> dict[str, object]:
        prompt = self._rows(slot, tenant)
        if prompt is None:
            prompt = Prompt((), tenant.encode())
        most = self._service.options.slot_bytes
        rows, size = await self._work(lambda model: save_rows(model, prompt, path, most))
        return {"n_saved": rows, "n_written": size}

    async def _restore(self, slot: int, path: Path) -> dict[str, object]:
        slots = self._service.slots
        slots.put(slot, None)  # also where it fails

        def work(model: Model) -> Restored:
            try:
                return restore_rows(model, path)
            except RequestError as error:
                raise HttpError(400, f"Unable to restore slot: {error.message}", hint=error.hint) from None

        restored = await self._work(work)
        slots.put(slot, restored.prompt)
        return {"n_restored": restored.rows, "n_read": restored.bytes}

    async def _erase(self, slot: int, tenant: str) -> int:
        prompt = self._rows(slot, tenant)
        if prompt is None:
            return 0
        self._service.slots.put(slot, None)
        return await self._work(lambda model: erase_rows(model, prompt))

    def _rows(self, slot: int, tenant: str) -> Prompt | None:
        """What the last answer there was; None where it was another key's."""
        prompt = self._service.slots.rows(slot)
        return None if prompt is None or not is_of(prompt.salt, tenant) else prompt

    async def _work(self, work: Callable[[Model], T]) -> T:
        model = self._service.model

        def alone(*, check: Callable[[], None]) -> T:
            check()
            try:
                return work(model)
            except FileError as error:
                log(error)
                raise HttpError(500, "the slot could not be written", hint="the server's log has more") from None

        return await self._service.work(alone)


def _name(given: SlotFile) -> str:
    if not _NAME.fullmatch(given.filename):
        raise HttpError(400, "Invalid filename", hint="give letters, digits, dots, dashes: no folder")
    return given.filename
