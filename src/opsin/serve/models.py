"""What the server tells of its model: /v1/models and /props."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.serve.failures import HttpError
from opsin.serve.service import Service


class Endpoints:
    """Routes about the model."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """OpenAI's list, of one."""
        return JSONResponse({"object": "list", "data": [self._entry()]})

    async def one(self, request: Request) -> Response:
        """The entry of the model of this name."""
        name = request.path_params["name"]
        if name != self._service.name:
            raise HttpError(404, f"there is no model {name!r:.200}", hint=f"this server has {self._service.name}")
        return JSONResponse(self._entry())

    async def props(self, request: Request) -> Response:
        """llama-server's properties, as far as they mean something here."""
        model = self._service.model
        modalities = {"vision": model.sees, "audio": False, "video": False}
        return JSONResponse(
            {
                "default_generation_settings": {"n_ctx": model.context},
                "total_slots": model.runner.limits.sequences,
                "model_alias": self._service.name,
                "model_path": model.path.name,  # where it lies is the operator's affair
                "modalities": modalities,
                "chat_template": model.template.source if model.template is not None else "",
            }
        )

    def _entry(self) -> dict[str, object]:
        service, model = self._service, self._service.model
        takes = ["text", "image"] if model.sees else ["text"]
        return {
            "id": service.name,
            "object": "model",
            "created": service.started,
            "owned_by": "opsin",
            "architecture": {"input_modalities": takes, "output_modalities": ["text"]},
            "meta": {"n_ctx": model.context, "n_vocab": model.tokenizer.vocabulary_size},
        }
