"""What people write shorter in Python: a text or one message is a conversation. Nothing of this comes over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from opsin.api.messages import Message
from opsin.config import expanded
from opsin.errors import RequestError

Messages = str | Message | Sequence[Message]
_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp")
_URLS = ("data:", "http://", "https://", "file:")
_LONGEST_NAME = 1024  # characters


def to_messages(given: Messages) -> Sequence[Message]:
    """Messages: a text is what one user says. What is no message is left to whoever reads them.

    Raises RequestError for a string among parts that reads like a picture's place.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages = [given] if isinstance(given, Mapping) else given
    if isinstance(messages, list | tuple):
        for number, message in enumerate(messages):
            _check_parts(f"messages[{number}].content", message)
    return messages


def _check_parts(name: str, message: object) -> None:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list | tuple):
        for place, part in enumerate(content):
            if isinstance(part, str):
                _refuse_place(part, f"{name}[{place}]")


def _refuse_place(text: str, name: str) -> None:
    """Strings among parts are texts. One that says where a picture lies would be answered blindly."""
    if len(text) > _LONGEST_NAME and not text.startswith("data:image/"):
        return
    if text.startswith(_URLS) and (text.startswith("data:image/") or _is_picture_name(text.partition("?")[0])):
        hint = 'for the picture give {"type": "image_url", "image_url": {"url": "..."}}'
    elif _is_picture_name(text) and (not any(map(str.isspace, text)) or _is_file(text)):
        hint = f"for the picture give pathlib.Path({text!r})"
    else:
        return
    raise RequestError(
        f"{name} is the text {text!r:.80}, which reads like a picture's place",
        hint=f'{hint}, for these words {{"type": "text", "text": "..."}}',
    )


def _is_picture_name(text: str) -> bool:
    return text.isprintable() and Path(text).suffix.lower() in _SUFFIXES


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):
        return expanded(text).is_file()
    return False
