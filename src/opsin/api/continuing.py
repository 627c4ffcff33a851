"""Prompts that end within the last message, which a model goes on with: its turn is begun and not closed.

The last turn is written as the template writes it in a history, and cut where the message's words end; transformers'
`continue_final_message` does so, too. A template that changes these words gets them behind the beginning of an answer,
as llama-server has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from opsin.errors import FieldError
from opsin.text import Written, join
from opsin.text.origin import spans_of

# What is gone on with: whichever of a message's texts is its last, or the one that is named.
Continues = Literal["last", "content", "thoughts"]
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
Message = Mapping[str, object]
_BETWEEN = "\n\n"  # texts of parts


def said_in(message: Message, continues: Continues) -> tuple[str, str]:
    """What of a message is gone on with: the name of its field, and its text.

    Raises FieldError for a message that nobody could go on with.
    """
    if message.get("role") != "assistant":
        raise FieldError("messages", "the last one is not the assistant's", hint="end with what it shall go on with")
    if message.get("tool_calls") or message.get("function_call"):
        raise FieldError("messages", "a call of a tool cannot be gone on with", hint="send its result")
    content = _text(message.get("content"))
    thoughts = next(((n, t) for n in _THOUGHTS if isinstance(t := message.get(n), str) and t), None)
    if continues == "thoughts" or (continues == "last" and not content and thoughts is not None):
        if thoughts is None:
            raise FieldError("messages", "the last one has no thoughts to go on with", hint="send reasoning_content")
        return thoughts
    return "content", content


def _text(content: object) -> str:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    if any(part.get("type") not in ("text", "refusal") for part in content):
        raise FieldError("messages", "a message with a picture cannot be gone on with", hint="end with a text")
    return join(_BETWEEN, (part.get("text") or part.get("refusal") or "" for part in content))


def continued(
    messages: Sequence[Message], continues: Continues, render: Callable[[Sequence[Message], bool], str]
) -> str:
    """The text of a prompt that ends within the last message. `render` may begin an answer after messages."""
    *before, last = messages
    name, said = said_in(last, continues)
    words = said.strip()
    if words:
        turn = {**last, "content": "" if name != "content" else said}
        whole = render([*before, turn], False)
        if (end := _end_of(words, whole)) is not None:
            return join("", (whole[:end], Written(said[len(said.rstrip()) :])))
    return join("", (render(before, True), Written(said)))


def _end_of(words: str, whole: str) -> int | None:
    """Where these words end, if they are in what people wrote last in a text; None where they are not."""
    start, end = (spans_of(whole) or ((0, 0),))[-1]
    place = whole.rfind(words, start, end)
    return None if place < 0 else place + len(words)
