"""What the server tells of its model: /v1/models, /props, /slots and the like, in llama-server's shapes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.api import TextEnding
from opsin.hub.bundled import ABOUT
from opsin.serve.errors import HttpError
from opsin.serve.generation_request import GenerationRequest
from opsin.serve.model_card import ModelCard
from opsin.serve.service import Service
from opsin.serve.settings import short_settings_of
from opsin.serve.usage import FINGERPRINT
from opsin.text import ContentForm


class ModelRoutes:
    """Routes about the model."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """OpenAI's list, of one, and llama-server's own beside it."""
        return JSONResponse({"models": [self._described()], "object": "list", "data": [self.entry()]})

    async def one(self, request: Request) -> Response:
        """The entry of the model of this name."""
        name = request.path_params["name"]
        if name not in self._service.names:
            raise HttpError(404, f"there is no model {name!r:.200}", hint=f"this server has {self._service.name}")
        return JSONResponse(self.entry())

    async def props(self, request: Request) -> Response:
        """llama-server's properties, as far as they mean something here."""
        card = self._service.card
        if request.method == "POST":
            raise HttpError(501, "properties cannot be changed", hint="start the server with other options")
        return JSONResponse(
            {
                "default_generation_settings": {
                    "params": short_settings_of(self._defaults, card.guesses),
                    "n_ctx": card.context,
                },
                "total_slots": card.sequences,
                "model_alias": self._service.name,
                "model_ftype": card.facts.file_type,
                "model_path": card.file,  # where it lies is the operator's affair
                "modalities": _modalities(card),
                "media_marker": self._service.media_marker,
                "endpoint_slots": self._service.options.slots,
                "endpoint_props": False,
                "endpoint_metrics": True,
                "ui": self._service.options.page,
                "chat_template": card.template,
                "chat_template_caps": _capabilities(card),
                "bos_token": card.bos,
                "eos_token": card.eos,
                "build_info": FINGERPRINT,
                "is_sleeping": not self._service.loaded,
                "ui_settings": {},
                "cors_proxy_enabled": False,
            }
        )

    async def slots(self, request: Request) -> Response:
        """One entry for each answer that may run at once. Which are busy is told, with what is not."""
        if not self._service.options.slots:
            raise HttpError(501, "slots are not told", hint="start the server without --no-slots")
        card = self._service.card
        count = card.sequences
        busy = min(self._service.active, count)
        if request.query_params.get("fail_on_no_slot") and busy == count:
            raise HttpError(503, "no slot is free", hint="come again in a few seconds")
        return JSONResponse(self._service.slots.told(card, busy))

    async def adapters(self, request: Request) -> Response:
        """There are none."""
        _ = self._service.card
        if request.method == "POST":
            raise HttpError(501, "adapters are not supported")
        return JSONResponse([])

    @property
    def _defaults(self) -> GenerationRequest:
        """What holds of a request that says nothing."""
        usual = self._service.usual
        return GenerationRequest(usual.sampling, TextEnding(usual.stop))

    def entry(self) -> dict[str, object]:
        """What is told of the model in a list."""
        service, card = self._service, self._service.card
        takes = ["text", *(name for name, has in (("image", card.sees), ("audio", card.hears)) if has)]
        facts = card.facts
        return {
            "id": service.name,
            "aliases": service.aliases,
            "tags": list(service.options.tags),
            "object": "model",
            "created": service.state.started,
            "owned_by": "opsin",
            "architecture": {
                "input_modalities": takes,
                "output_modalities": ["text" if card.writes else "embeddings"],
            },
            **_bundled(card),
            "meta": {
                "vocab_type": facts.vocabulary_type,
                "n_vocab": card.vocabulary_size,
                "n_ctx": card.context,
                "n_ctx_train": card.trained_context,
                "n_embd": card.width,
                "n_params": facts.parameters,
                "size": facts.bytes,
                "ftype": facts.file_type,
            },
        }

    def _described(self) -> dict[str, object]:
        """What llama-server tells besides, of which nothing is known here but what it can do."""
        service = self._service
        said = {
            "completion": service.card.writes,
            "multimodal": service.card.sees,
            "embedding": not service.card.writes,
        }
        can = [name for name, has in said.items() if has]
        details = dict.fromkeys(("parent_model", "family", "parameter_size", "quantization_level"), "")
        return {
            "name": service.name,
            "model": service.name,
            **dict.fromkeys(("modified_at", "size", "digest", "description", "parameters"), ""),
            "type": "model",
            "tags": [""],
            "capabilities": can,
            "details": {**details, "format": "gguf", "families": [""]},
        }


def _bundled(card: ModelCard) -> dict[str, object]:
    """What the model that comes with opsin can do; nothing of others."""
    return {"bundled": True, "description": ABOUT} if card.bundled else {}


def _capabilities(card: ModelCard) -> dict[str, bool]:
    """What the template can take, in llama-server's words; nothing of a model without one."""
    can, source = card.can, card.template
    if can is None:
        return {}
    return {
        "supports_object_arguments": can.calls is not None and can.calls.mappings,
        "supports_parallel_tool_calls": can.calls is not None,
        "supports_preserve_reasoning": False,
        "supports_reasoning_effort": "reasoning_effort" in source,
        "supports_string_content": can.content != ContentForm.PARTS,
        "supports_system_role": can.system,
        "supports_tool_calls": can.calls is not None,
        "supports_tools": "tools" in source,
        "supports_typed_content": can.content != ContentForm.TEXT,
    }


def _modalities(card: ModelCard) -> dict[str, bool]:
    return {"vision": card.sees, "audio": card.hears, "video": False}
