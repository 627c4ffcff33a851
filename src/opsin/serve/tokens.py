"""/tokenize and /detokenize, as llama-server has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.api import Model
from opsin.serve.body import Body
from opsin.serve.completion_request import Piece, pieces_of
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields
from opsin.serve.refused import refuse_media
from opsin.serve.service import Service
from opsin.serve.stream import unless_gone

_MOST, _SLICE = 1 << 23, 1 << 12  # characters or ids


@dataclass(frozen=True)
class _Asked:
    pieces: tuple[Piece, ...]
    add_special: bool
    parse_special: bool
    with_pieces: bool


class TokenRoutes:
    """Routes of texts and ids."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def tokenize(self, request: Request) -> Response:
        """Ids of a text; `with_pieces` says the text of each, or its bytes where they are no text."""
        service = self._service
        asked = await service.read(Body.of(request), _asked)
        return await self._make(request, lambda check: _listed(service.model, asked, check))

    async def detokenize(self, request: Request) -> Response:
        """Text of ids."""
        service, model = self._service, self._service.model
        ids = await service.read(Body.of(request), _ids)
        return await self._make(
            request, lambda check: JSONResponse({"content": model.tokenizer.decode(ids, special=True)})
        )

    async def _make(self, request: Request, work: Callable[[Callable[[], None]], Response]) -> Response:
        """On a thread. `work` is given a function to call now and then, which raises when the client has gone."""
        service = self._service
        until = asyncio.get_running_loop().time() + service.options.seconds
        with service.admit():
            return await unless_gone(request, service.make(work, until))


def _asked(body: Mapping[str, Any]) -> _Asked:
    refuse_media(body)
    fields, content = Fields(body), body.get("content")
    pieces: tuple[Piece, ...]
    if isinstance(content, str):
        pieces = (content,)
    elif isinstance(content, list):
        pieces = pieces_of(content, "content")
    else:
        raise FieldError("content", f"{content!r:.40} is no text", hint='send {"content": "..."}')
    if sum(map(len, pieces)) > _MOST:
        raise FieldError("content", f"more than {_MOST} characters", hint="send it in parts")
    parse = True if body.get("parse_special") is None else fields.flag("parse_special")
    return _Asked(pieces, fields.flag("add_special"), parse, fields.flag("with_pieces"))


def _ids(body: Mapping[str, Any]) -> list[int]:
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(t, int) and not isinstance(t, bool) for t in tokens):
        raise FieldError("tokens", "no list of ids", hint='send {"tokens": [1, 2]}')
    return tokens


def _listed(model: Model, asked: _Asked, check: Callable[[], None]) -> Response:
    """Written slice by slice: all at once, nobody else would have a turn."""
    ids = _ids_of(model, asked, check)
    lists = []
    for start in range(0, len(ids), _SLICE):
        check()
        some = ids[start : start + _SLICE]
        listed = [{"id": id, "piece": _piece(model, id)} for id in some] if asked.with_pieces else some
        lists.append(json.dumps(listed, separators=(",", ":"))[1:-1])
    return Response('{"tokens":[' + ",".join(lists) + "]}", media_type="application/json")


def _ids_of(model: Model, asked: _Asked, check: Callable[[], None]) -> list[int]:
    ids: list[int] = []
    for number, piece in enumerate(asked.pieces):
        if isinstance(piece, str):
            add = asked.add_special and number == 0
            piece = model.tokenizer.encode(piece, special=asked.parse_special, add_special=add, check=check)
        ids += piece
    return ids


def _piece(model: Model, id: int) -> object:
    data = model.tokenizer.piece(id, special=True)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
