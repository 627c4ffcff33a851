"""What a chat template can take, found by trying it: templates are programs, and their names say little.

Each trial renders a small conversation with words in it that must come out again, and not as data written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

Message = Mapping[str, object]
Trial = Callable[[Sequence[Message]], str]  # a conversation as text; "" where the template fails

_NEEDLE = "needle in a haystack"
_CALL, _KEY = "needle_call", "needle_key"
_ARGUMENTS: tuple[object, ...] = ({_KEY: "hay"}, f'{{"{_KEY}": "hay"}}')
_OPENAI_ID, _NINE_LETTERS = "call_0123456789abcdefABCDEF", "abcDEF123"
_WRITTEN_OUT = ("None", f"{{'{_KEY}'", '\\"')  # a null, a mapping, a text in quotes once more


class ContentForm(Enum):
    """How a template wants the content of a message."""

    TEXT = "text"
    PARTS = "parts"
    EITHER = "either"


@dataclass(frozen=True)
class Calls:
    """How a template shows the tools that an assistant called.

    Attributes:
        content: what stands as content beside calls without a text: None or "".
        mappings: whether arguments may be a mapping; else they are JSON as text.
        texts: whether arguments may be JSON as text.
        nine_letters: whether ids must be nine letters and digits, as Mistral's are.
    """

    content: str | None
    mappings: bool
    texts: bool
    nine_letters: bool


@dataclass(frozen=True)
class Capabilities:
    """What a template can take.

    Attributes:
        content: the form of a user's content.
        pictures: whether a part `{"type": "image"}` beside a text leaves something in the text, such as `<image>`.
        sounds: the same of a part `{"type": "audio"}`.
        system: whether a message of the system comes out.
        developer: whether it knows developers; what they say was called the system's when most templates were written.
        tools: whether a message of the role "tool" comes out.
        tool_parts: whether its content may be parts.
        calls: how it shows calls; None where it does not.
    """

    content: ContentForm
    pictures: bool
    sounds: bool
    system: bool
    developer: bool
    tools: bool
    tool_parts: bool
    calls: Calls | None

    def takes(self, kind: str) -> bool:
        """Whether a part of this type leaves something in the text."""
        return self.pictures if kind == "image" else self.sounds

    @classmethod
    def of(cls, source: str, trial: Trial) -> Capabilities:
        content = _content_form(trial)

        def say(role: str, text: str) -> Message:
            return {"role": role, "content": _parts(text) if content == ContentForm.PARTS else text}

        user, answer, result = say("user", "hay"), say("assistant", "straw"), say("tool", _NEEDLE)
        told = {"name": _CALL, "tool_call_id": _NINE_LETTERS}
        shown = trial([user, answer, {**result, **told, "content": _parts(_NEEDLE)}])
        return cls(
            content=content,
            pictures=_takes(trial, "image"),
            sounds=_takes(trial, "audio"),
            system=_NEEDLE in trial([say("system", _NEEDLE), user]),
            developer="developer" in source and _NEEDLE in trial([say("developer", _NEEDLE), user]),
            tools=_NEEDLE in trial([user, answer, {**result, **told}]),
            tool_parts=_NEEDLE in shown and not _is_data(shown),
            calls=_calls(trial, user, answer, result),
        )


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _content_form(trial: Trial) -> ContentForm:
    """Whether a text comes out where a text, or a list of one part, goes in."""
    text, parts = _shown(trial, _NEEDLE), _shown(trial, _parts(_NEEDLE))
    if text and parts:
        return ContentForm.EITHER
    return ContentForm.PARTS if parts else ContentForm.TEXT


def _takes(trial: Trial, kind: str) -> bool:
    """Tried with a part of this kind, without it, and with one of a kind that no template knows."""
    picture = _shown(trial, [{"type": kind}, *_parts(_NEEDLE)])
    others = (_shown(trial, _parts(_NEEDLE)), _shown(trial, [{"type": "nothing"}, *_parts(_NEEDLE)]))
    return bool(picture) and all("".join(picture.split()) != "".join(other.split()) for other in others)


def _shown(trial: Trial, content: object) -> str:
    """What becomes of a user's message, if its text is in it and it was not just written out as data."""
    text = trial([{"role": "user", "content": content}])
    return text if _NEEDLE in text and not _is_data(text) else ""


def _is_data(text: str) -> bool:
    """Whether parts were just written out."""
    return "'type'" in text or '"type"' in text


def _calls(trial: Trial, user: Message, answer: Message, result: Message) -> Calls | None:
    """The first way in which a call comes out as it should: in a whole conversation, and as clients write it, first."""
    for ending, id, content in product(([answer, user], [], None), (_OPENAI_ID, _NINE_LETTERS), (None, "")):
        tool = {**result, "name": _CALL, "tool_call_id": id}
        rest = [] if ending is None else [tool, *ending]
        mappings, texts = (_shows_call(trial([user, _call(id, content, given), *rest])) for given in _ARGUMENTS)
        if mappings or texts:
            return Calls(content, mappings, texts, nine_letters=id == _NINE_LETTERS)
    return None


def _call(id: str, content: str | None, arguments: object) -> Message:
    call = {"id": id, "type": "function", "function": {"name": _CALL, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def _shows_call(text: str) -> bool:
    return _CALL in text and _KEY in text and not any(odd in text for odd in _WRITTEN_OUT)
