"""Conversations that differ in one thing, rendered by a template that may be anybody's; all within one budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Protocol

Message = Mapping[str, object]

USER, ANSWER, THOUGHT = "needle of a user", "needle of an answer", "needle of a thought"
NAMES = ("needle_one", "needle_two")  # of tools
KEYS = ("first_straw", "second_straw")  # of their arguments
VALUES = ("XXXX", "YYYY")
THINK = {"enable_thinking": True, "thinking": True}
HURRY = {"enable_thinking": False, "thinking": False}
_ASKED: Message = {"role": "user", "content": USER}


class Trial(Protocol):
    """A conversation as text; "" where the template fails."""

    def __call__(
        self, messages: Sequence[Message], /, *, add_generation_prompt: bool,
        tools: Sequence[Message] | None, **variables: object,
    ) -> str: ...  # fmt: skip


def tools() -> list[Message]:
    """Two tools with two texts as arguments each."""
    properties = {key: {"type": "string", "description": "a straw"} for key in KEYS}
    return [
        {"type": "function", "function": {"name": name, "description": "a needle", "parameters": {
            "type": "object", "properties": dict(properties), "required": []}}}
        for name in NAMES
    ]  # fmt: skip


def turn_of(trial: Trial, message: Message, variables: Mapping[str, object], shown: Sequence[Message] | None) -> str:
    """What an assistant's turn becomes behind a user's words: its own text, with what opens and ends it."""
    text = trial([_ASKED, message], add_generation_prompt=False, tools=shown, **variables)
    return text.rpartition(USER)[2] if USER in text else ""


def prompt_of(trial: Trial, variables: Mapping[str, object], shown: Sequence[Message] | None) -> str:
    """What asks a model for its turn: behind a user's words, where they ask for none, all that stands there."""
    start, whole = (trial([_ASKED], add_generation_prompt=asks, tools=shown, **variables) for asks in (False, True))
    asked = whole[len(start) :] if start and whole.startswith(start) else ""
    return asked or whole.rpartition(USER)[2]


def shared(texts: Sequence[str]) -> str:
    """How all of these begin, cut back to whole markers."""
    common = commonprefix(list(texts))
    if all(text == common for text in texts):
        return common
    open = max(common.rfind("<"), common.rfind("["))
    is_whole = open < 0 or max(common.rfind(">"), common.rfind("]")) > open
    return common if is_whole else common[:open]
