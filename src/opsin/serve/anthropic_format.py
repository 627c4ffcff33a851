"""Anthropic's message, whole and as events: blocks of thoughts, text and calls, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from opsin.api import Answer
from opsin.serve.anthropic import translate
from opsin.serve.chat import ChatProtocol, tells_thoughts
from opsin.serve.generation import Answers, Delta
from opsin.text.calls import CallStart, Content, ReplyDelta, Thought

_Json = Mapping[str, Any]


@dataclass
class AnthropicFormat:
    """Of one answer: it knows which block is open, and how many there were before.

    Attributes:
        thoughts: whether they are told.
    """

    thoughts: bool = True
    index: int = -1
    opened: str = ""
    is_marked: ClassVar[bool] = False

    def whole(self, told: Answers) -> _Json:
        answer = told.choices[0].answer
        blocks: list[_Json] = []
        if self.thoughts and answer.thoughts:
            blocks.append({"type": "thinking", "thinking": answer.thoughts, "signature": ""})
        if answer.text:
            blocks.append({"type": "text", "text": answer.text})
        for call in answer.tool_calls:
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": call.read_whole()})
        return {**_head(told), "content": blocks, **_end(answer), "usage": _usage(told)}

    def begin(self, told: Answers) -> Iterable[_Json]:
        message = {**_head(told), "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(told)}
        yield {"type": "message_start", "message": message}

    def delta(self, told: Answers, delta: Delta) -> Iterable[_Json]:
        for part in delta.piece.deltas:
            if self.thoughts or not isinstance(part, Thought):
                yield from self._part(part)
        if delta.is_last:
            yield from self._close()
            end = _end(told.answers[delta.choice])
            yield {"type": "message_delta", "delta": end, "usage": _usage(told)}

    def close(self, told: Answers) -> Iterable[_Json]:
        yield {"type": "message_stop"}

    def _part(self, part: ReplyDelta) -> Iterator[_Json]:
        if isinstance(part, CallStart):
            yield from self._open("tool_use", {"id": part.id, "name": part.name, "input": {}})
            return
        if isinstance(part, Content):
            kind, start, told = "text", {"text": ""}, {"type": "text_delta", "text": part.text}
        elif isinstance(part, Thought):
            start = {"thinking": "", "signature": ""}
            kind, told = "thinking", {"type": "thinking_delta", "thinking": part.text}
        else:
            kind, start, told = "tool_use", {}, {"type": "input_json_delta", "partial_json": part.text}
        if self.opened != kind:
            yield from self._open(kind, start)
        yield {"type": "content_block_delta", "index": self.index, "delta": told}

    def _open(self, kind: str, start: _Json) -> Iterator[_Json]:
        yield from self._close()
        self.index, self.opened = self.index + 1, kind
        yield {"type": "content_block_start", "index": self.index, "content_block": {"type": kind, **start}}

    def _close(self) -> Iterator[_Json]:
        if self.opened == "thinking":  # clients want one; there is nothing here that would check it
            signature = {"type": "signature_delta", "signature": ""}
            yield {"type": "content_block_delta", "index": self.index, "delta": signature}
        if self.opened:
            yield {"type": "content_block_stop", "index": self.index}
        self.opened = ""


def _head(told: Answers) -> dict[str, Any]:
    return {"id": told.head["id"], "type": "message", "role": "assistant", "model": told.head["model"]}


def _end(answer: Answer) -> dict[str, Any]:
    """Why it ended, and with which of the texts that end it."""
    word = answer.stopping_word
    reason = "max_tokens" if answer.reason == "length" else "tool_use" if answer.is_calling else "end_turn"
    return {"stop_reason": reason if word is None else "stop_sequence", "stop_sequence": word}


def _usage(told: Answers) -> dict[str, int]:
    """In Anthropic's words: what was read from the cache is not among what was put in."""
    usage = told.usage
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached, "output_tokens": usage["completion_tokens"],
        "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0,
    }  # fmt: skip


ANTHROPIC_CHAT: Final = ChatProtocol(
    "msg_", translate, lambda asked, fields, _: AnthropicFormat(tells_thoughts(asked, fields)),
    lambda count: {"input_tokens": count},
)  # fmt: skip
