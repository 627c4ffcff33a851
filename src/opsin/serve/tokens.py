"""/tokenize and /detokenize, as llama-server has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.api import Model
from opsin.serve.body import Body
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields, read
from opsin.serve.raw_prompts import Id, Piece, pieces_of
from opsin.serve.service import Service
from opsin.serve.stream import unless_gone

_MOST, _SLICE = 1 << 23, 1 << 12  # characters or ids


class TokenizeRequest(Fields, kw_only=True):
    """Texts to become ids."""

    content: Annotated[
        str | list[str | Id],
        Meta(
            description="A text, or texts and ids; 8,388,608 characters together.",
            extra={"hint": 'send {"content": "..."}'},
        ),
    ]
    add_special: Annotated[bool, Meta(description="Put the tokens around it that the file asks for.")] = False
    parse_special: Annotated[bool, Meta(description="Texts of special tokens become their ids.")] = True
    with_pieces: Annotated[bool, Meta(description="Tell the text of each id.")] = False

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return pieces_of([self.content] if isinstance(self.content, str) else self.content, "content")


class DetokenizeRequest(Fields, kw_only=True):
    """Ids to become a text."""

    tokens: Annotated[list[int], Meta(description="Ids.", extra={"hint": 'send {"tokens": [1, 2]}'})]


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
        asked = await service.read(Body.of(request), lambda body: read(body, DetokenizeRequest))
        return await self._make(
            request, lambda check: JSONResponse({"content": model.tokenizer.decode(asked.tokens, special=True)})
        )

    async def _make(self, request: Request, work: Callable[[Callable[[], None]], Response]) -> Response:
        """On a thread. `work` is given a function to call now and then, which raises when the client has gone."""
        service = self._service
        until = asyncio.get_running_loop().time() + service.options.seconds
        with service.admit():
            return await unless_gone(request, service.make(work, until))


def _asked(body: Mapping[str, Any]) -> TokenizeRequest:
    asked = read(body, TokenizeRequest)
    pieces = [asked.content] if isinstance(asked.content, str) else asked.content
    if sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces) > _MOST:
        raise FieldError("content", f"more than {_MOST} characters", hint="send it in parts")
    return asked


def _listed(model: Model, asked: TokenizeRequest, check: Callable[[], None]) -> Response:
    """Written slice by slice: all at once, nobody else would have a turn."""
    ids = _ids_of(model, asked, check)
    lists = []
    for start in range(0, len(ids), _SLICE):
        check()
        some = ids[start : start + _SLICE]
        listed = [{"id": id, "piece": _piece(model, id)} for id in some] if asked.with_pieces else some
        lists.append(json.dumps(listed, separators=(",", ":"))[1:-1])
    return Response('{"tokens":[' + ",".join(lists) + "]}", media_type="application/json")


def _ids_of(model: Model, asked: TokenizeRequest, check: Callable[[], None]) -> list[int]:
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
