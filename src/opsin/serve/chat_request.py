"""A chat request of OpenAI's shape, checked: what it asks for, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsin.engine.sampling import Sampling
from opsin.serve.failures import FieldError
from opsin.serve.fields import Fields

MOST_CHOICES, MOST_STOPS, MOST_LOGPROBS = 16, 64, 20
# They stand beside a template's own words, where a line break would begin a message of somebody else.
_ROLE, _NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}"), re.compile(r"[\w. -]{1,64}")
_CONTENT_HINT = 'give a text, or a list of {"type": "text"} and {"type": "image_url"}'

# Fields that change what an answer means and that we cannot honour yet, with the values that ask for nothing.
_NOT_YET: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "logit_bias": ({}, []),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repeat_penalty": (1,),
    "grammar": ("",),
    "json_schema": ({},),
    "audio": (),
    "prediction": (),
}


@dataclass(frozen=True)
class ChatRequest:
    """What a client wants.

    Attributes:
        messages: as the client wrote them, of checked shape.
        choices: how many answers.
        usage: whether a stream ends with its usage.
    """

    messages: Sequence[Mapping[str, Any]]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    choices: int = 1


def chat_request(body: Mapping[str, Any], *, answers: int = MOST_CHOICES) -> ChatRequest:
    """Read a body. `answers` is how many a request may ask for. Raises FieldError, naming the field."""
    fields = Fields(body)
    for name, harmless in _NOT_YET.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise FieldError(name, "not supported yet", hint="leave it out")
    kind = fields.object("response_format").get("type", "text")
    if kind != "text":
        raise FieldError("response_format", f"{kind!r:.80} is not supported yet", hint="leave it out")
    stop = fields.texts("stop")
    if len(stop) > MOST_STOPS:
        raise FieldError("stop", f"{len(stop)} texts", hint=f"give at most {MOST_STOPS}")
    return ChatRequest(
        messages=messages_of(body),
        sampling=_sampling(fields),
        stop=stop,
        stream=fields.flag("stream"),
        usage=bool(fields.object("stream_options").get("include_usage")),
        choices=fields.whole("n", "n_cmpl", low=1, high=min(answers, MOST_CHOICES)) or 1,
    )


def messages_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a body, of checked shape. What their pictures hold is checked where they are opened."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise FieldError("messages", "there are none", hint='give [{"role": "user", "content": "..."}]')
    for number, message in enumerate(messages):
        name = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldError(f"{name}.role", "there is none", hint="give user, assistant or system")
        if not _ROLE.fullmatch(message["role"]):
            raise FieldError(f"{name}.role", f"{message['role']!a:.80}", hint="give user, assistant or system")
        called = message.get("name")
        if called is not None and not (isinstance(called, str) and _NAME.fullmatch(called)):
            raise FieldError(f"{name}.name", f"{called!a:.80}", hint="give letters, digits, dots and dashes")
        _check_content(f"{name}.content", message.get("content"))
    return messages


def _check_content(name: str, content: object) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise FieldError(name, f"{content!r:.40} is neither text nor parts", hint=_CONTENT_HINT)
    for number, part in enumerate(content):
        place = f"{name}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind == "image_url" and isinstance(_url(part), str):
            continue
        raise FieldError(place, f"a part of type {kind!r:.40} cannot be read", hint=_CONTENT_HINT)


def _url(part: Mapping[str, Any]) -> object:
    image = part.get("image_url")
    return image.get("url") if isinstance(image, dict) else image


def _sampling(fields: Fields) -> Sampling:
    most = fields.whole("max_completion_tokens", "max_tokens", "n_predict", low=-1, high=1 << 31)
    seed = fields.whole("seed", low=-(1 << 63), high=(1 << 64) - 1)
    knobs = {
        "temperature": fields.number("temperature", 0, 100),
        "top_k": fields.whole("top_k", low=-1, high=1 << 31),
        "top_p": fields.number("top_p", 0, 1, clamp=True),
        "min_p": fields.number("min_p", 0, 1, clamp=True),
        "max_tokens": None if most == -1 else most,
        "seed": None if seed is None or seed == -1 else seed % (1 << 64),
        "ignore_eos": fields.flag("ignore_eos"),
        "logprobs": _logprobs(fields),
    }
    if knobs["top_k"] == -1:  # as llama-server means it: all
        knobs["top_k"] = 0
    return Sampling(**{name: value for name, value in knobs.items() if value is not None})  # type: ignore[arg-type]


def _logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", low=0, high=MOST_LOGPROBS)
    if top and not wanted:
        raise FieldError("top_logprobs", "logprobs is not set", hint="send logprobs: true")
    return (top or 0) if wanted else None
