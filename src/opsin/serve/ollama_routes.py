"""Routes under /api, as Ollama has them: chats, generations, and what there is to be told of the one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin import __version__
from opsin.errors import RequestError
from opsin.serve.chat import ChatProtocol, ChatRequest, ChatRoutes, tells_thoughts
from opsin.serve.completions import CompletionRequest, CompletionRoutes
from opsin.serve.exchange import Exchange
from opsin.serve.fields import read
from opsin.serve.model_card import ModelCard
from opsin.serve.ollama import (
    OllamaChatFields,
    OllamaFields,
    OllamaGenerateFields,
    ends_at_once,
    gap,
    raw_prompt,
    translate_chat,
    translate_generation,
)
from opsin.serve.ollama_format import OllamaFormat, now
from opsin.serve.raw_prompts import gaps_of
from opsin.serve.service import Service

_LOADED, _UNLOADED = "load", "unload"
_FOR_EVER: Final = "2318-01-01T00:00:00Z"
CHAT: Final = ChatProtocol(
    "ollama-", translate_chat, lambda asked, fields, _: OllamaFormat(True, tells_thoughts(asked, fields))
)
GENERATION: Final = ChatProtocol(
    "ollama-", translate_generation, lambda asked, fields, _: OllamaFormat(False, tells_thoughts(asked, fields))
)


class OllamaRoutes:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chats, self._generations = ChatRoutes(service, CHAT), ChatRoutes(service, GENERATION)
        self._completions = CompletionRoutes(service)

    async def chat(self, exchange: Exchange) -> None:
        """Answer a conversation, in Ollama's shape."""
        asked = await self._service.parse(exchange.body, partial(self._asked_chat, tenant=exchange.tenant))
        if isinstance(asked, OllamaChatFields):
            await exchange.value(self._visited(asked, {"message": {"role": "assistant", "content": ""}}))
        else:
            await self._chats.answer(exchange, asked)

    async def generate(self, exchange: Exchange) -> None:
        """Answer a prompt, in Ollama's shape."""
        asked = await self._service.parse(exchange.body, partial(self._asked_generation, tenant=exchange.tenant))
        if isinstance(asked, OllamaGenerateFields):
            await exchange.value(self._visited(asked, {"response": ""}))
        elif isinstance(asked, ChatRequest):
            await self._generations.answer(exchange, asked)
        else:
            await self._completions.answer(exchange, asked, lambda *_: OllamaFormat(False), "ollama-")

    async def version(self, request: Request) -> Response:
        """Of this server."""
        return JSONResponse({"version": __version__})

    async def tags(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"models": [self.entry()]})

    async def running(self, request: Request) -> Response:
        """The same, while it is in memory."""
        if not self._service.loaded:
            return JSONResponse({"models": []})
        return JSONResponse({"models": [self.loaded_entry()]})

    async def show(self, exchange: Exchange) -> None:
        """What the model is and can do."""
        card, usual = self._service.card, self._service.usual
        facts = card.facts
        architecture = facts.architecture
        sampling = {name: getattr(usual.sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        await exchange.value(
            {
                "modelfile": "",
                "parameters": "\n".join(f"{name} {value:g}" for name, value in sampling.items()),
                "template": card.template,
                "details": _details(card),
                "model_info": {
                    "general.architecture": architecture,
                    "general.parameter_count": facts.parameters,
                    f"{architecture}.context_length": card.trained_context,
                    f"{architecture}.embedding_length": card.width,
                },
                "capabilities": _capabilities(card),
                "modified_at": card.modified,
            }
        )

    def _asked_chat(self, body: Mapping[str, Any], *, tenant: str) -> ChatRequest | OllamaChatFields:
        """The fields alone where nothing is said."""
        asked = read(body, OllamaChatFields)
        return self._chats.asked(body, tenant=tenant) if asked.messages else asked

    def _asked_generation(
        self, body: Mapping[str, Any], *, tenant: str
    ) -> ChatRequest | CompletionRequest | OllamaGenerateFields:
        asked = read(body, OllamaGenerateFields)
        if asked.suffix:
            if not self._service.card.infills:
                raise RequestError(f"{self._service.name!r} does not support insert", hint="take a model for code")
            return self._completions.asked(gap(asked), read_prompts=gaps_of, tenant=tenant)
        if not asked.prompt and not asked.images:
            return asked
        if asked.raw:
            return self._completions.asked(raw_prompt(asked), tenant=tenant)
        return self._generations.asked(body, tenant=tenant)

    def _visited(self, asked: OllamaFields, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """What those hear who ask for nothing but the model: that it is there, or that it goes (`ollama stop`)."""
        goes = ends_at_once(asked.keep_alive) and self._service.let_go()
        reason = _UNLOADED if goes else _LOADED
        return {"model": self._service.name, "created_at": now(), **said, "done": True, "done_reason": reason}

    def loaded_entry(self) -> dict[str, Any]:
        """What is told of a model that is in memory."""
        context = self._service.card.context
        return {**self.entry(), "size_vram": 0, "expires_at": _FOR_EVER, "context_length": context}

    def entry(self) -> dict[str, Any]:
        """What is told of a model in a list."""
        card, name = self._service.card, self._service.name
        size, modified = card.facts.bytes, card.modified
        # Names a file, not its bytes: to read them all takes seconds.
        digest = hashlib.sha256(f"{name} {size} {modified}".encode()).hexdigest()
        return {
            "name": name, "model": name, "modified_at": modified, "size": size, "digest": digest,
            "details": _details(card), "capabilities": _capabilities(card),
        }  # fmt: skip


def _details(card: ModelCard) -> dict[str, Any]:
    facts = card.facts
    return {
        "parent_model": "", "format": "gguf", "family": facts.architecture, "families": [facts.architecture],
        "parameter_size": _size(facts.parameters), "quantization_level": facts.file_type,
        "context_length": card.trained_context, "embedding_length": card.width,
    }  # fmt: skip


def _size(parameters: int) -> str:
    """As people call it: 134.52M, 7.6B."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.2f}M"


def _capabilities(card: ModelCard) -> list[str]:
    """What clients look for before they offer tools or take pictures."""
    said = {
        "completion": card.writes,
        "embedding": not card.writes or card.facts.pooling is not None,
        "vision": card.sees,
        "audio": card.hears,
        "tools": card.can is not None and card.can.calls is not None,
        "thinking": card.thinks,
        "insert": card.infills,
    }
    return [name for name, has in said.items() if has]
