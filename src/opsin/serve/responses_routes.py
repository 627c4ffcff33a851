"""Routes of OpenAI's responses, and what is kept of them, so that they can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.errors import FieldError
from opsin.serve.chat import ChatFields, ChatProtocol, ChatRoutes, tells_thoughts
from opsin.serve.conversation import AskedConversation
from opsin.serve.errors import HttpError
from opsin.serve.responses import translate
from opsin.serve.responses_format import ResponsesFormat
from opsin.serve.service import Service
from opsin.serve.translated import Translated

_Json = Mapping[str, Any]


class ResponseRoutes:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._store = service.state.responses
        self.chats = ChatRoutes(service, ChatProtocol("resp_", self._translate, self._form))

    async def one(self, request: Request) -> Response:
        """A response that was stored; DELETE forgets it."""
        id = request.path_params["id"]
        kept = self._store.find(id)
        if kept is None:
            raise HttpError(404, f"there is no response {id!r:.80}", hint="it was not stored, or is gone")
        if request.method == "DELETE":
            self._store.forget(id)
            return JSONResponse({"id": id, "object": "response", "deleted": True})
        return JSONResponse(kept.response)

    def _translate(self, body: _Json) -> Translated:
        previous = body.get("previous_response_id")
        if not isinstance(previous, str):
            return translate(body)
        kept = self._store.find(previous)
        if kept is None:
            what = f"there is no response {previous!r:.80}"
            raise FieldError("previous_response_id", what, hint="send the whole conversation as input")
        return translate(body, kept.messages)

    def _form(self, asked: AskedConversation, fields: ChatFields, translated: Translated) -> ResponsesFormat:
        body = translated.sent
        echo = {
            "instructions": body.get("instructions"),
            "previous_response_id": body.get("previous_response_id"),
            "store": body.get("store") is not False,
            "metadata": body.get("metadata") or {},
            "tools": [{"strict": True, "parameters": {}, **tool} for tool in body.get("tools") or ()],
            "tool_choice": body.get("tool_choice") or "auto",
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "text": body.get("text") or {"format": {"type": "text"}},
            "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
            "temperature": body.get("temperature"),
            "top_p": body.get("top_p"),
            "max_output_tokens": body.get("max_output_tokens"),
            "truncation": "disabled",
        }
        told: list[_Json] = list(translated.body["messages"])
        if body.get("instructions") is not None:
            told.pop(0)  # they are not inherited
        keep = partial(self._keep, told) if echo["store"] else _drop
        return ResponsesFormat(echo, tells_thoughts(asked, fields), keep)

    def _keep(self, messages: Sequence[_Json], response: _Json, answer: _Json) -> None:
        self._store.keep(response, [*messages, answer])


def _drop(response: _Json, answer: _Json) -> None:
    """It shall not be stored."""
