"""OpenAI's response, whole and as events: items of thoughts, text and calls, one after another."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from opsin.api import Answer
from opsin.serve.generation import Answers, Delta
from opsin.text.calls import CallStart, Content, ReplyDelta, Thought

_Json = Mapping[str, Any]
Keep = Callable[[_Json, _Json], None]


@dataclass
class ResponsesFormat:
    """Of one answer: it knows its items, of which the last may be open.

    Attributes:
        echo: what is told of the request.
        thoughts: whether they are told.
        keep: gets the response and the answer as a message of a conversation, once it is over.
    """

    echo: _Json
    thoughts: bool
    keep: Keep
    items: list[dict[str, Any]] = field(default_factory=list, init=False)
    numbers: int = field(default=0, init=False)
    is_marked: ClassVar[bool] = False

    def whole(self, told: Answers) -> _Json:
        choice = told.choices[0]
        answer = choice.answer
        if self.thoughts and answer.thoughts:
            self._begin("reasoning")["content"] = [{"type": "reasoning_text", "text": answer.thoughts}]
        if answer.text or not answer.is_calling:
            logprobs = told.logprobs([*choice.logprobs, *choice.end])
            self._begin("message")["content"] = [_text(answer.text, logprobs)]
        for call in answer.tool_calls:
            self._begin("function_call", call_id=call.id, name=call.name, arguments=call.arguments)
        for item in self.items:
            item["status"] = "completed"
        return self._over(told, answer)

    def begin(self, told: Answers) -> Iterable[_Json]:
        response = self._response(told, "in_progress")
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def delta(self, told: Answers, delta: Delta) -> Iterable[_Json]:
        extras = told.extras(delta)
        if delta.piece.progress is not None:
            yield {**self._event("response.in_progress", response=self._response(told, "in_progress")), **extras}
        logprobs = told.logprobs(delta.piece.logprobs) or []
        for part in delta.piece.deltas:
            if self.thoughts or not isinstance(part, Thought):
                for event in self._part(part, logprobs):
                    yield {**event, **(extras if event["type"].endswith(".delta") else {})}
        if delta.is_last:
            yield from self._end()
            answer = told.answers[delta.choice]
            kind = "response.incomplete" if answer.reason == "length" else "response.completed"
            yield {**self._event(kind, response=self._over(told, answer)), "timings": told.timings(0)}

    def close(self, told: Answers) -> Iterable[_Json]:
        return ()

    def _part(self, part: ReplyDelta, logprobs: list[Any]) -> Iterator[_Json]:
        """Events of a piece; those of a new item before it."""
        if isinstance(part, CallStart):
            yield from self._added("function_call", call_id=part.id, name=part.name, arguments="")
            return
        kind = "message" if isinstance(part, Content) else "reasoning" if isinstance(part, Thought) else "function_call"
        if not self.items or self.items[-1]["type"] != kind or self.items[-1]["status"] == "completed":
            yield from self._added(kind)
        item = self.items[-1]
        if kind == "function_call":
            item["arguments"] += part.text
            yield self._of_item("response.function_call_arguments.delta", delta=part.text)
            return
        item["content"][0]["text"] += part.text
        more = {"logprobs": logprobs} if kind == "message" else {}
        name = "output_text" if kind == "message" else "reasoning_text"
        yield self._of_item(f"response.{name}.delta", content_index=0, delta=part.text, **more)

    def _added(self, kind: str, **about: object) -> Iterator[_Json]:
        yield from self._end()
        item = self._begin(kind, **about)
        yield self._event("response.output_item.added", output_index=len(self.items) - 1, item=dict(item))
        if kind != "function_call":
            part = _text("") if kind == "message" else {"type": "reasoning_text", "text": ""}
            yield self._of_item("response.content_part.added", content_index=0, part=part)
            item["content"] = [dict(part)]

    def _end(self) -> Iterator[_Json]:
        """The last item is complete."""
        if not self.items or self.items[-1]["status"] == "completed":
            return
        item = self.items[-1]
        if item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._of_item("response.function_call_arguments.done", **done)
        else:
            (part,) = item["content"]
            is_text = part["type"] == "output_text"
            name = "output_text" if is_text else "reasoning_text"
            more: dict[str, object] = {"logprobs": []} if is_text else {}
            yield self._of_item(f"response.{name}.done", content_index=0, text=part["text"], **more)
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        item["status"] = "completed"
        yield self._event("response.output_item.done", output_index=len(self.items) - 1, item=item)

    def _begin(self, kind: str, **about: object) -> dict[str, Any]:
        begin = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        item: dict[str, Any] = {"type": kind, "id": f"{begin}_{uuid.uuid4().hex}", "status": "in_progress", **about}
        if kind == "message":
            item |= {"role": "assistant", "content": []}
        elif kind == "reasoning":
            item |= {"summary": [], "content": []}
        self.items.append(item)
        return item

    def _event(self, kind: str, **about: object) -> dict[str, Any]:
        self.numbers += 1
        return {"type": kind, "sequence_number": self.numbers - 1, **about}

    def _of_item(self, kind: str, **about: object) -> dict[str, Any]:
        return self._event(kind, item_id=self.items[-1]["id"], output_index=len(self.items) - 1, **about)

    def _over(self, told: Answers, answer: Answer) -> _Json:
        cut = answer.reason == "length"
        response = {
            **self._response(told, "incomplete" if cut else "completed"),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self.items,
            "usage": _usage(told),
        }
        self.keep(response, answer.message)
        return response

    def _response(self, told: Answers, status: str) -> dict[str, Any]:
        return {
            "id": told.head["id"],
            "object": "response",
            "created_at": told.head["created"],
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": told.head["model"],
            "output": [],
            "usage": None,
            **self.echo,
        }


def _text(text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def _usage(told: Answers) -> _Json:
    usage = told.usage
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": usage["completion_tokens_details"],
        "total_tokens": usage["total_tokens"],
    }
