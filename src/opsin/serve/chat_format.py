"""OpenAI's chat.completion, whole and in chunks: an answer's text, thoughts and calls as its clients read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from opsin.api import Answer, Logprobs
from opsin.serve.conversation import Prefill
from opsin.serve.generation import Answers, Delta
from opsin.serve.native_format import about_prompt, verbose
from opsin.serve.usage import FINGERPRINT, finish_reason
from opsin.text.calls import CallStart, Content, ReplyDelta, Thought


@dataclass(frozen=True)
class ChatFormat:
    """OpenAI's chat.completion.

    Attributes:
        thoughts: whether they are told.
        one_call: whether a call is told in OpenAI's first form, which has one alone.
        prefill: what the answer goes on with; whole answers begin with it.
        echo: whether streams do, too.
    """

    thoughts: bool = True
    one_call: bool = False
    prefill: Prefill | None = None
    echo: bool = False
    is_marked: ClassVar[bool] = True

    def whole(self, told: Answers) -> Mapping[str, Any]:
        choices: list[dict[str, Any]] = [
            {
                "index": choice.index,
                "message": self._message(choice.answer),
                "logprobs": _logprobs(told, choice.logprobs),
                "finish_reason": self._reason(choice.answer),
            }
            for choice in told.choices
        ]
        head = {**told.head, "object": "chat.completion", "system_fingerprint": FINGERPRINT}
        for choice, value in zip(told.choices, choices, strict=True):
            value |= {"token_ids": choice.answer.ids} if told.request.report.return_token_ids else {}
        whole = {**head, "choices": choices, "usage": told.usage, "timings": told.timings(0)}
        return {**whole, **about_prompt(told), **verbose(told, told.choices[0])}

    def begin(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        first = {"role": "assistant", "content": None}
        for index in range(told.request.choices):
            yield self._chunk(told, index, first)
            if self.prefill is not None and self.echo:
                yield self._chunk(told, index, {_field(self.prefill): self.prefill.text})

    def delta(self, told: Answers, delta: Delta) -> Iterable[Mapping[str, Any]]:
        logprobs = _logprobs(told, delta.piece.logprobs) if delta.piece.logprobs else None
        extras = told.extras(delta)
        if delta.piece.progress is not None:
            yield {**self._chunk(told, delta.choice, {}), **extras}
        for part in delta.piece.deltas:
            if self.thoughts or not isinstance(part, Thought):
                yield {**self._chunk(told, delta.choice, self._part(part), logprobs), **extras}
                logprobs = None
        if delta.is_last:
            reason = self._reason(told.answers[delta.choice])
            chunk = self._chunk(told, delta.choice, {}, logprobs, end=reason)
            chunk = {**chunk, **verbose(told, told.choices[delta.choice])}
            # llama-server's timings stand in the last chunk of all
            yield chunk if told.request.usage else {**chunk, "timings": told.timings(delta.choice)}

    def _message(self, answer: Answer) -> Mapping[str, Any]:
        """Of an answer that is over. One that only calls has no content."""
        message = answer.message
        if self.prefill is not None:  # as llama-server tells it; a stream goes on behind it
            name = _field(self.prefill)
            message[name] = self.prefill.text + str(message.get(name, ""))
        if not self.thoughts:
            message.pop("reasoning_content", None)
        if not answer.is_calling:
            return message
        if self.one_call:
            message.pop("tool_calls")
            message["function_call"] = answer.tool_calls[0].message["function"]
        return {**message, "content": message["content"] or None}

    def _reason(self, answer: Answer) -> str:
        reason = finish_reason(answer)
        return "function_call" if reason == "tool_calls" and self.one_call else reason

    def _part(self, part: ReplyDelta) -> dict[str, object]:
        """A part of an answer as a delta has it."""
        if isinstance(part, Content):
            return {"content": part.text}
        if isinstance(part, Thought):
            return {"reasoning_content": part.text}
        function = {"name": part.name, "arguments": ""} if isinstance(part, CallStart) else {"arguments": part.text}
        if self.one_call:
            return {"function_call": function}
        about = {"id": part.id, "type": "function"} if isinstance(part, CallStart) else {}
        return {"tool_calls": [{"index": part.index, **about, "function": function}]}

    def close(self, told: Answers) -> Iterable[Mapping[str, Any]]:
        if told.request.usage:
            yield {**_head(told), "choices": [], "usage": told.usage, "timings": told.timings(0)}

    def _chunk(
        self, told: Answers, index: int, delta: Mapping[str, object], logprobs: object = None, *,
        end: str | None = None,
    ) -> Mapping[str, Any]:  # fmt: skip
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}
        return {**_head(told), "choices": [choice]}


def _field(prefill: Prefill) -> str:
    return "reasoning_content" if prefill.is_thought else "content"


def _head(told: Answers) -> dict[str, Any]:
    return {**told.head, "object": "chat.completion.chunk", "system_fingerprint": FINGERPRINT}


def _logprobs(told: Answers, some: Sequence[Logprobs]) -> dict[str, object] | None:
    content = told.logprobs(some)
    return None if content is None else {"content": content, "refusal": None}
