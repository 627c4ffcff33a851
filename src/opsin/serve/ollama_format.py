"""Ollama's answers: lines of JSON, the last of which tells why it ended and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from opsin.api import Answer
from opsin.api.reply_reader import ToolCall
from opsin.serve.generation import Answers, Delta
from opsin.text.calls import CallArguments, CallStart, Content, Thought

_Json = Mapping[str, Any]


@dataclass
class OllamaFormat:
    """Of one answer. A call is told whole.

    Attributes:
        chat: whether what is said stands in a message; else in `response`.
        thoughts: whether they are told.
    """

    chat: bool
    thoughts: bool = True
    calling: ToolCall | None = field(default=None, init=False)
    is_marked: ClassVar[bool] = False

    def whole(self, told: Answers) -> _Json:
        choice = told.choices[0]
        answer = choice.answer
        thoughts, logprobs = answer.thoughts if self.thoughts else "", told.logprobs([*choice.logprobs, *choice.end])
        said = self._said(answer.text, thoughts, [_call(call) for call in answer.tool_calls], logprobs)
        return {**_head(told), **said, **_end(told, answer)}

    def begin(self, told: Answers) -> Iterable[_Json]:
        return ()

    def delta(self, told: Answers, delta: Delta) -> Iterable[_Json]:
        logprobs = told.logprobs(delta.piece.logprobs)
        for part in delta.piece.deltas:
            if isinstance(part, CallArguments):
                assert self.calling is not None
                self.calling.arguments += part.text
                continue
            yield from self._called(told)
            if isinstance(part, CallStart):
                self.calling = ToolCall(part.id or "", part.name)
            elif isinstance(part, Content):
                yield self._line(told, self._said(part.text, logprobs=logprobs))
                logprobs = None
            elif isinstance(part, Thought) and self.thoughts:
                yield self._line(told, self._said("", part.text, logprobs=logprobs))
                logprobs = None
        if delta.is_last:
            yield from self._called(told)
            answer = told.answers[delta.choice]
            yield {**_head(told), **self._said("", logprobs=logprobs), **_end(told, answer)}

    def close(self, told: Answers) -> Iterable[_Json]:
        return ()

    def _called(self, told: Answers) -> Iterator[_Json]:
        """A call that is complete now."""
        call, self.calling = self.calling, None
        if call is not None:
            yield self._line(told, self._said("", calls=[_call(call)]))

    def _line(self, told: Answers, said: _Json) -> _Json:
        return {**_head(told), **said, "done": False}

    def _said(
        self, text: str, thoughts: str = "", calls: list[_Json] | None = None, logprobs: list[Any] | None = None
    ) -> _Json:
        """Where a protocol's clients look for it: in a message, or beside everything else."""
        more = {name: value for name, value in (("thinking", thoughts), ("tool_calls", calls)) if value}
        beside = {"logprobs": logprobs} if logprobs else {}
        if self.chat:
            return {"message": {"role": "assistant", "content": text, **more}, **beside}
        return {"response": text, **more, **beside}


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _head(told: Answers) -> dict[str, Any]:
    return {"model": told.head["model"], "created_at": now()}


def _call(call: ToolCall) -> _Json:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.read_whole()}}


def _end(told: Answers, answer: Answer) -> _Json:
    """Times are whole nanoseconds."""
    timings, usage = told.timings(0), answer.usage
    return {
        "done": True,
        "done_reason": "length" if answer.reason == "length" else "stop",
        "total_duration": round(1e9 * (time.perf_counter() - told.start)),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt,
        "prompt_eval_duration": round(1e6 * timings["prompt_ms"]),
        "eval_count": len(answer.ids),
        "eval_duration": round(1e6 * timings["predicted_ms"]),
    }
