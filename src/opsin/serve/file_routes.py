"""/v1/files: pictures and sounds that are sent once and named by id, for OpenAI's clients and Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.errors import FieldError, RequestError
from opsin.media.headers import read_header
from opsin.media.hearing import check_sound
from opsin.media.limits import PictureLimits
from opsin.media.sound import is_sound
from opsin.serve.errors import HttpError
from opsin.serve.exchange import Exchange
from opsin.serve.multipart import FormBody
from opsin.serve.record import Record
from opsin.serve.service import Service
from opsin.serve.stored_files import StoredFile, TenantFiles

FORM: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "A picture or a sound."},
        "purpose": {"type": "string", "description": "Is told again."},
        "expires_after[seconds]": {"type": "integer", "description": "For how long it is kept."},
    },
}
_MOST, _LONGEST = 10_000, 200  # files in a list, characters of a name
_LEAST_SECONDS, _MOST_SECONDS = 1, 30 * 24 * 3600


class FileRoutes:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, exchange: Exchange) -> None:
        """Store a picture or a sound, under an id that stands for it in messages."""
        form = await self._service.form(exchange.body, exchange.request.headers.get("content-type", ""))
        file = form.file("file")
        if file is None:
            raise FieldError("file", "there is none", hint="send it as multipart/form-data, with a file name")
        try:
            if is_sound(file.data):
                check_sound(file.data)
            else:
                read_header(file.data, PictureLimits())
        except RequestError as error:
            raise FieldError("file", error.message, hint=error.hint) from None
        stored = self._mine(exchange.request).add(
            file.data, name=file.name[:_LONGEST], type=file.type or "application/octet-stream",
            purpose=(form.value("purpose") or "user_data")[:_LONGEST], seconds=_seconds(form),
        )  # fmt: skip
        exchange.body.let_go()
        await exchange.value(_told(stored, exchange.request))

    async def list(self, request: Request) -> Response:
        """What is stored under this key, the newest first."""
        asked, files = request.query_params, self._mine(request).all()
        if asked.get("order", "desc") != "asc":
            files.reverse()
        if (purpose := asked.get("purpose")) is not None:
            files = [file for file in files if file.purpose == purpose]
        after = asked.get("after") or asked.get("after_id")
        if after is not None:
            ids = [file.id for file in files]
            files = files[ids.index(after) + 1 :] if after in ids else []
        limit = asked.get("limit", str(_MOST))
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= _MOST:
            raise FieldError("limit", f"{limit!r:.40} is out of range", hint=f"give 1 to {_MOST}")
        shown = files[: int(limit)]
        data = [_told(file, request) for file in shown]
        ends = {"first_id": shown[0].id, "last_id": shown[-1].id} if shown else {"first_id": None, "last_id": None}
        return JSONResponse({"object": "list", "data": data, "has_more": len(shown) < len(files), **ends})

    async def one(self, request: Request) -> Response:
        """What is known of a stored file; DELETE forgets it."""
        file = self._find(request)
        if request.method != "DELETE":
            return JSONResponse(_told(file, request))
        self._mine(request).forget(file.id)
        return JSONResponse({"id": file.id, "object": "file", "deleted": True, "type": "file_deleted"})

    async def content(self, request: Request) -> Response:
        """A stored file."""
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        return Response(self._find(request).data, media_type="application/octet-stream", headers=headers)

    def _mine(self, request: Request) -> TenantFiles:
        return self._service.state.files.of(Record.of(request.scope).tenant)

    def _find(self, request: Request) -> StoredFile:
        id = request.path_params["id"]
        file = self._mine(request).find(id)
        if file is None:
            raise HttpError(404, f"there is no file {id!r:.80}", hint="it was not stored with this key, or is gone")
        return file


def _seconds(form: FormBody) -> int | None:
    """For how long a file is kept; None until it has no room any more."""
    name = "expires_after[seconds]"
    given = form.value(name)
    if given is None:
        return None
    if not given.isdecimal() or not _LEAST_SECONDS <= int(given[:12]) <= _MOST_SECONDS:
        raise FieldError(name, f"{given!r:.40} is out of range", hint=f"give {_LEAST_SECONDS} to {_MOST_SECONDS}")
    return int(given)


def _told(file: StoredFile, request: Request) -> dict[str, Any]:
    """A file in the words of both kinds of clients; Anthropic's take times as texts."""
    of_anthropic = "anthropic-version" in request.headers
    created = datetime.fromtimestamp(file.created, UTC).isoformat() if of_anthropic else file.created
    told = {
        "id": file.id,
        "object": "file",
        "type": "file",
        "bytes": len(file.data),
        "size_bytes": len(file.data),
        "created_at": created,
        "filename": file.name,
        "mime_type": file.type,
        "purpose": file.purpose,
        "status": "processed",
        "downloadable": True,
    }
    return told if file.expires is None else {**told, "expires_at": file.expires}
