"""/tokenize and /detokenize, as llama-server and vLLM have them, and vLLM's /tokenizer_info."""

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
from opsin.serve.fields import Fields, read, unbuilt
from opsin.serve.raw_prompts import Id, Piece, pieces_of
from opsin.serve.service import Service

_MOST, _SLICE = 1 << 23, 1 << 12  # characters or ids


_Content = Annotated[
    str | list[str | Id],
    Meta(
        description="A text, or texts and ids; 8,388,608 characters together. vLLM calls it prompt.",
        extra={"hint": 'send {"content": "..."}'},
    ),
]


class TokenizeRequest(Fields, kw_only=True):
    """Texts to become ids."""

    content: _Content = ""
    prompt: _Content | None = None
    add_special: Annotated[bool, Meta(description="Put the tokens around it that the file asks for.")] = False
    add_special_tokens: Annotated[bool, Meta(description="The same, of a prompt.")] = True
    parse_special: Annotated[bool, Meta(description="Texts of special tokens become their ids.")] = True
    with_pieces: Annotated[bool, Meta(description="Tell the text of each id.")] = False
    return_token_strs: Annotated[bool | None, Meta(description="Of a prompt, tell the texts as token_strs.")] = None
    messages: Annotated[Any, unbuilt([], send="them to /v1/chat/completions/input_tokens, or /apply-template")] = None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        given, name = (self.content, "content") if self.prompt is None else (self.prompt, "prompt")
        return pieces_of([given] if isinstance(given, str) else given, name)

    @property
    def adds(self) -> bool:
        """Whether tokens of the file are put around it: vLLM does so, where nothing is said."""
        return self.add_special if self.prompt is None else self.add_special_tokens


class DetokenizeRequest(Fields, kw_only=True):
    """Ids to become a text."""

    tokens: Annotated[list[int], Meta(description="Ids.", extra={"hint": 'send {"tokens": [1, 2]}'})] = []


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
                await exchange.value({"content": text, "prompt": text})  # vLLM calls it so

    async def info(self, exchange: Exchange) -> None:
        """vLLM's tokenizer_info: special tokens and the template, for whoever writes prompts elsewhere."""
        model = self._service.model
        tokenizer = model.tokenizer
        await exchange.value(
            {
                "tokenizer_class": "opsin",
                "model_max_length": model.context,
                "bos_token": _special(model, tokenizer.bos),
                "eos_token": _special(model, tokenizer.eos),
                "add_bos_token": tokenizer.add_bos,
                "add_eos_token": tokenizer.add_eos,
                "chat_template": None if model.template is None else model.template.source,
            }
        )


def _asked(body: Mapping[str, Any]) -> TokenizeRequest:
    asked = read(body, TokenizeRequest)
    if sum(map(len, asked.pieces)) > _MOST:
        name = "content" if asked.prompt is None else "prompt"
        raise FieldError(name, f"more than {_MOST} characters", hint="send it in parts")
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
    tokens = '"tokens":[' + ",".join(lists) + "]"
    if asked.prompt is None:
        return "{" + tokens + "}"
    texts = [str(_piece(model, id)) for id in ids] if asked.return_token_strs else None
    told = {"count": len(ids), "max_model_len": model.context, "token_strs": texts}
    return json.dumps(told)[:-1] + "," + tokens + "}"


def _ids_of(model: Model, asked: TokenizeRequest, check: Callable[[], None]) -> list[int]:
    ids: list[int] = []
    for number, piece in enumerate(asked.pieces):
        if isinstance(piece, str):
            add = asked.adds and number == 0
            piece = model.tokenizer.encode(piece, special=asked.parse_special, add_special=add, check=check)
        ids += piece
    return ids


def _special(model: Model, id: int | None) -> str | None:
    return None if id is None else model.tokenizer.piece(id, special=True).decode("utf-8", "replace")


def _piece(model: Model, id: int) -> object:
    data = model.tokenizer.piece(id, special=True)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
