"""Messages as people and OpenAI's clients write them, checked and in one form: what a template is given is this."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from opsin.errors import FieldError, RequestError

Message = Mapping[str, object]
_HINT = 'give [{"role": "user", "content": "..."}]'
# Words in the names of fields under which others take pictures, sounds and files: never something to leave aside.
_MEDIA = frozenset(
    word + ending
    for word in (
        "image",
        "img",
        "picture",
        "photo",
        "audio",
        "video",
        "attachment",
        "file",
        "document",
        "media",
        "modal",
    )
    for ending in ("", "s")
) | {"multimodal"}
_WORD, _LONGEST_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+"), 64
_PART_HINT = 'give pictures as parts of the content, as {"type": "image_url", ...}'
_CALL_HINT = 'give {"function": {"name": "...", "arguments": "{...}"}}'


def check_messages(messages: Sequence[Message], knows_role: Callable[[str], bool]) -> list[dict[str, object]]:
    """Each has a role that is known, and a content: None, a text or a list. Fields that say nothing are gone.

    Calls stand in `tool_calls`, also those of OpenAI's first form (`function_call`), and their results have the role
    "tool". Raises RequestError, naming the field.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise RequestError("there are no messages", hint=_HINT)
    found = [_checked(f"messages[{number}]", message, knows_role) for number, message in enumerate(messages)]
    return _with_ids(found)


def names_media(field: str) -> bool:
    """Whether a field has a name as others give to media: imageData, image-data, IMAGE_DATA."""
    return len(field) <= _LONGEST_NAME and any(word.lower() in _MEDIA for word in _WORD.findall(field))


def _checked(name: str, message: object, knows_role: Callable[[str], bool]) -> dict[str, object]:
    if not isinstance(message, Mapping) or not isinstance(role := message.get("role"), str):
        raise FieldError(name, "there is no role", hint=_HINT)
    if not knows_role(role):
        raise FieldError(f"{name}.role", f"{role!a:.80} is not known", hint="give user, assistant, system or tool")
    for field, value in message.items():
        if isinstance(field, str) and names_media(field) and value is not None and not _is_empty(value):
            raise FieldError(f"{name}.{field}", "nothing is read from here", hint=_PART_HINT)
    found = {field: value for field, value in message.items() if value is not None and not _is_empty(value)}
    if "tool_calls" in found:
        found["tool_calls"] = _calls(f"{name}.tool_calls", found["tool_calls"])
    refusal, content = found.pop("refusal", None), message.get("content")
    if content is None and isinstance(refusal, str):
        content = refusal
    if not isinstance(content, str | list | tuple | None):
        raise FieldError(f"{name}.content", f"is {type(content).__name__}, not a text or a list", hint=_HINT)
    if content is None and "tool_calls" not in found and "function_call" not in found:
        if "content" not in message:
            raise FieldError(name, "there is no content", hint=_HINT)
        content = ""
    return {**found, "content": content}


def _with_ids(messages: list[dict[str, object]]) -> list[dict[str, object]]:
    """Calls of the first form have no ids: each gets one, which its result has too."""
    id, found = None, []
    for number, message in enumerate(messages):
        called = message.pop("function_call", None)
        if called is not None:
            id = f"call_{number}"
            calls = _calls(f"messages[{number}].function_call", [{"id": id, "type": "function", "function": called}])
            message = {**message, "tool_calls": calls}
        if message["role"] == "function":
            message = {**message, "role": "tool", **({"tool_call_id": id} if id is not None else {})}
        found.append(message)
    return found


def _calls(name: str, calls: object) -> list[dict[str, object]]:
    if not isinstance(calls, list | tuple):
        raise FieldError(name, f"is {type(calls).__name__}, not a list", hint=_CALL_HINT)
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise FieldError(f"{name}[{number}].function", "there is no name", hint=_CALL_HINT)
        arguments = function.get("arguments")
        if not isinstance(arguments, str | Mapping | None):
            what = f"is {type(arguments).__name__}, not JSON as a text"
            raise FieldError(f"{name}[{number}].function.arguments", what, hint=_CALL_HINT)
    return [dict(cast(Mapping[str, object], call)) for call in calls]


def _is_empty(value: object) -> bool:
    """An empty list: other things (arrays) may not even be compared."""
    return isinstance(value, list) and not value
