"""Errors as OpenAI's clients and llama-server's know them."""

from __future__ import annotations

import logging

from opsin.errors import ContextError, OpsinError, RequestError
from opsin.serve.traces import current_id, trace

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "unavailable_error",
    504: "timeout_error",
}
COME_AGAIN_SECONDS = 2
_HINT = "the server's log has more"
_LOG = logging.getLogger("opsin.serve")


class HttpError(OpsinError):
    """A request refused by the protocol, with its status, and when to come again where that would do."""

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, retry_seconds: int = COME_AGAIN_SECONDS
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_seconds = status, retry_seconds


def ending() -> HttpError:
    """What those hear whose answers are cut off when the server ends."""
    return HttpError(503, "the server is ending", hint="ask again")


def body_of(error: OpsinError) -> dict[str, object]:
    """The JSON of an error."""
    param = error.param if isinstance(error, RequestError) else None
    kind = _TYPES.get(error.status, "server_error")
    told: dict[str, object] = {"message": text_of(error), "type": kind, "param": param, "code": error.status}
    if isinstance(error, ContextError):
        told["type"] = "exceed_context_size_error"  # what llama-server's clients look for before they shorten a prompt
        told |= {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_tokens}
    return {"error": told}


def text_of(error: OpsinError) -> str:
    """What strangers hear of an error: of a failure of ours the kind, and the log has the rest."""
    return str(error) if error.stranger is None else f"{error.stranger} ({_HINT})"


def headers_of(error: OpsinError) -> dict[str, str]:
    """Of the response that tells it."""
    headers = {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_seconds", COME_AGAIN_SECONDS))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def heard(error: Exception) -> OpsinError:
    """What a client hears of an error. One of ours goes into the log."""
    if isinstance(error, OpsinError):
        log(error)
        return error
    _LOG.error("internal error%s\n%s", _of_request(), trace(error))
    return unexpected(error)


def log(error: OpsinError) -> None:
    """A failure of the machine is the operator's affair too."""
    if error.stranger is not None and error.status >= 500:
        _LOG.error("a request failed%s\n%s", _of_request(), trace(error))


def _of_request() -> str:
    """Which request it was, where it is known."""
    return f" (request {current_id.get()})" if current_id.get() else ""


def unexpected(error: BaseException) -> OpsinError:
    """What a person hears of an error of ours: its kind, nothing from inside."""
    return OpsinError(f"internal error: {type(error).__name__}", hint=_HINT)
