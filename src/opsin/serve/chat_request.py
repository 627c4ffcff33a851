"""A chat request of OpenAI's shape, checked: what it asks for, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsin.api import Sampling
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields
from opsin.serve.refused import CONVERSATION, PART, PROMPT, refuse, refuse_in_message, refuse_media
from opsin.serve.wanted import MOST_LOGPROBS, Wanted, wanted

# They stand beside a template's own words, where a line break would begin a message of somebody else.
_ROLE, _NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}"), re.compile(r"[\w. -]{1,64}")
_CONTENT_HINT = 'give a text, or a list of {"type": "text"} and {"type": "image_url"}'


@dataclass(frozen=True)
class ChatRequest:
    """A conversation, as the client wrote it, of checked shape; and what is wanted of it."""

    messages: Sequence[Mapping[str, Any]]
    wanted: Wanted


def chat_request(body: Mapping[str, Any], *, answers: int, base: Sampling) -> ChatRequest:
    """Read a body. `answers` is how many a request may ask for, `base` what it may leave open of sampling.

    Raises FieldError, naming the field.
    """
    fields = Fields(body)
    messages = conversation(body)
    refuse(fields, {"n_probs": (0,)})  # /completion has it; here it is logprobs and top_logprobs
    return ChatRequest(messages, wanted(fields, answers=answers, logprobs=_logprobs(fields), base=base))


def conversation(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a body that asks for nothing which would change the prompt and cannot be honoured."""
    refuse_media(body)
    refuse(Fields(body), CONVERSATION, PROMPT)
    return messages_of(body)


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
        refuse_in_message(message, f"{name}.")
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
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            refuse_media(part, f"{place}.")
            continue
        if kind == "image_url" and isinstance(_url(part), str):
            refuse_media(part, f"{place}.", but=("image_url",))
            for holder in (part, part["image_url"]):
                if isinstance(holder, dict):
                    refuse(Fields(holder), PART, place=f"{place}.")
            if part.get("text"):
                raise FieldError(
                    f"{place}.text", "nothing is read from here", hint="send the text as a part of its own"
                )
            continue
        raise FieldError(place, f"a part of type {kind!r:.40} cannot be read", hint=_CONTENT_HINT)


def _url(part: Mapping[str, Any]) -> object:
    image = part.get("image_url")
    return image.get("url") if isinstance(image, dict) else image


def _logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", low=0, high=MOST_LOGPROBS)
    if top and not wanted:
        raise FieldError("top_logprobs", "logprobs is not set", hint="send logprobs: true")
    return (top or 0) if wanted else None
