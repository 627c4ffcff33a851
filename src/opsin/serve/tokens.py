"""/tokenize and /detokenize, as llama-server has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from msgspec import Meta
from starlette.responses import Response

from opsin.api import Model
from opsin.errors import FieldError
from opsin.serve.exchange import Exchange
from opsin.serve.fields import Fields, read
from opsin.serve.raw_prompts import Id, Piece, pieces_of
from opsin.serve.service import Service

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

    async def tokenize(self, exchange: Exchange) -> None:
        """Ids of a text; `with_pieces` says the text of each, or its bytes where they are no text."""
        service = self._service
        asked = await service.parse(exchange.body, _asked)
        with service.admit():
            async with exchange:
                listed = await service.prompt(exchange.body, partial(_listed, service.model, asked))
                await exchange.respond(Response(listed, media_type="application/json"))

    async def detokenize(self, exchange: Exchange) -> None:
        """Text of ids."""
        service = self._service
        asked = await service.parse(exchange.body, _ids)
        with service.admit():
            async with exchange:
                text = await service.prompt(exchange.body, partial(_decoded, service.model, asked.tokens))
                await exchange.value({"content": text})


def _asked(body: Mapping[str, Any]) -> TokenizeRequest:
    asked = read(body, TokenizeRequest)
    pieces = [asked.content] if isinstance(asked.content, str) else asked.content
    if sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces) > _MOST:
        raise FieldError("content", f"more than {_MOST} characters", hint="send it in parts")
    return asked


def _ids(body: Mapping[str, Any]) -> DetokenizeRequest:
    return read(body, DetokenizeRequest)


def _decoded(model: Model, ids: list[int], *, check: Callable[[], None]) -> str:
    check()
    return model.tokenizer.decode(ids, special=True)


def _listed(model: Model, asked: TokenizeRequest, *, check: Callable[[], None]) -> str:
    """Written slice by slice: all at once, nobody else would have a turn."""
    ids = _ids_of(model, asked, check)
    lists = []
    for start in range(0, len(ids), _SLICE):
        check()
        some = ids[start : start + _SLICE]
        listed = [{"id": id, "piece": _piece(model, id)} for id in some] if asked.with_pieces else some
        lists.append(json.dumps(listed, separators=(",", ":"))[1:-1])
    return '{"tokens":[' + ",".join(lists) + "]}"


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
