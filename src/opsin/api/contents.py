"""What people write into messages: texts and pictures in many forms, read into those that a template knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from opsin.errors import RequestError
from opsin.spans import Patches

if TYPE_CHECKING:
    from opsin.api.vision import Vision
    from opsin.media.decode import Source

Message = Mapping[str, object]
_HINT = 'give [{"role": "user", "content": "..."}]'
_PART_HINT = 'give a text, a picture, or {"type": "text" or "image_url", ...}'


@dataclass(frozen=True)
class Conversation:
    """Messages whose contents are None, a text, or a list of `{"type": "text", ...}` and `{"type": "image"}`.

    Attributes:
        messages: in this form.
        pictures: those of the parts of the type "image", in their order, with their names for errors.
    """

    messages: list[dict[str, object]]
    pictures: list[tuple[str, Patches]]


def read(
    messages: Sequence[Message], vision: Vision | None, *, blind: str, check: Callable[[], None] = lambda: None
) -> Conversation:
    """Check messages, and prepare the pictures in them. `blind` is the hint where nobody can see.

    `check` is called before each part: what it raises ends the work.

    Raises RequestError, naming the part, for what is no message or no picture.
    """
    if isinstance(messages, str | Mapping) or not messages:
        raise RequestError("there are no messages", hint=_HINT)
    conversation = Conversation([], [])
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(f"message {number} has no role", hint=_HINT)
        content = message.get("content")
        if not isinstance(content, str | list | tuple | None):
            raise RequestError(f"message {number} has a content of {type(content).__name__}", hint=_HINT)
        if content is None and not message.get("tool_calls"):
            content = ""  # many templates join contents to texts
        if isinstance(content, list | tuple):
            content = [
                _part(part, f"messages[{number}].content[{i}]", conversation, vision, blind)
                for i, part in enumerate(_checked(content, check))
            ]
        conversation.messages.append({**message, "content": content})
    return conversation


def _checked(parts: Sequence[object], check: Callable[[], None]) -> Iterator[object]:
    for part in parts:
        check()
        yield part


def _part(part: object, name: str, into: Conversation, vision: Vision | None, blind: str) -> dict[str, object]:
    """A part in the form of templates. A picture goes into the conversation's list."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping):
        text = part.get("text")
        if isinstance(text, str) and part.get("type", "text") == "text":
            return {"type": "text", "text": text}
        if part.get("type") not in ("image_url", "image"):
            raise RequestError(f"{name} is of the type {part.get('type')!r:.80}", hint=_PART_HINT)
    if vision is None:
        raise RequestError(f"{name} is a picture, and this model takes text only", hint=blind)
    into.pictures.append((name, _picture(part, name, vision)))
    return {"type": "image"}


def _picture(part: object, name: str, vision: Vision) -> Patches:
    if not isinstance(part, Mapping):
        return vision.prepare(cast("Source", part), name)
    kind = cast(str, part["type"])
    source = part.get(kind)
    if isinstance(source, Mapping):
        source = source.get("url")
    if source is None:
        raise RequestError(f"{name} has no {kind}", hint='give {"type": "image_url", "image_url": {"url": "..."}}')
    # A string is never a path here: such parts may come from strangers.
    return vision.fetch(source, name) if isinstance(source, str) else vision.prepare(cast("Source", source), name)


def plain(messages: Sequence[Message], marker: str) -> list[dict[str, object]]:
    """The same messages with texts as contents, for templates that know no parts; `marker` stands for a picture."""
    return [{**message, "content": _joined(message.get("content"), marker)} for message in messages]


def _joined(content: object, marker: str) -> object:
    if not isinstance(content, list):
        return content
    return "\n".join(marker if part["type"] == "image" else part["text"] for part in content)
