"""What a reply says, as it comes: its content, its thoughts, its calls of tools, by the parser of a model's format."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from opsin.errors import RequestError
from opsin.text.calls import CallArguments, CallStart, Content, ReplyDelta, ReplyParser, Thought

_LETTERS = string.ascii_letters + string.digits


@dataclass
class ToolCall:
    """A call of a tool. `arguments` is JSON as the model wrote it: of a reply that was cut it may be cut, too."""

    id: str
    name: str
    arguments: str = ""

    def read(self) -> dict[str, object]:
        """The arguments. Raises RequestError for what is no JSON object."""
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise RequestError(f"the arguments of {self.name} are no JSON object: {self.arguments!a:.80}")
        return value

    def read_whole(self) -> dict[str, object]:
        """The arguments; none, where they are no JSON object, as those of a call that was cut."""
        try:
            return self.read()
        except RequestError:
            return {}

    @property
    def message(self) -> dict[str, object]:
        """As a message of an assistant holds it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass
class ReplyReader:
    """Reads one reply. For one thread at a time.

    Args:
        parser: None for a reply that is all content.
        around: markers between which thoughts stand in the content; None where they are told apart from it.
        opened: whether the prompt wrote the first of them.
        letters: of the ids of calls, where a model writes none.
    """

    parser: ReplyParser | None = None
    around: tuple[str, str] | None = None
    opened: bool = False
    letters: int = 24
    content: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    _is_open: bool = False  # thoughts in the content

    def feed(self, text: str, *, last: bool) -> tuple[ReplyDelta, ...]:
        """What more of its text tells; `last` where no more comes."""
        if self.parser is None:
            if text:
                self.content.append(text)
            return (Content(text),) if text else ()
        told: Sequence[ReplyDelta] = [*self.parser.feed(text), *(self.parser.finish() if last else [])]
        if self.around is not None:
            told = [self._within(delta, *self.around) for delta in told]
        return tuple(self._keep(delta) for delta in told)

    def _within(self, delta: ReplyDelta, opens: str, closes: str) -> ReplyDelta:
        """Thoughts as content between their markers, but for one that the prompt wrote."""
        if isinstance(delta, Thought):
            begins, self._is_open = not self._is_open, True
            written, self.opened = self.opened and begins, False
            return Content((opens if begins and not written else "") + delta.text)
        if isinstance(delta, Content) and self._is_open:
            self._is_open = False
            return Content(closes + delta.text)
        return delta

    def _keep(self, delta: ReplyDelta) -> ReplyDelta:
        """The same, which is a part of the whole now; a call without an id gets one."""
        if isinstance(delta, Content):
            self.content.append(delta.text)
        elif isinstance(delta, Thought):
            self.thoughts.append(delta.text)
        elif isinstance(delta, CallArguments):
            self.calls[delta.index].arguments += delta.text
        else:
            delta = CallStart(delta.index, delta.id or self._new_id(), delta.name)
            self.calls.append(ToolCall(delta.id or "", delta.name))
        return delta

    def _new_id(self) -> str:
        return "".join(secrets.choice(_LETTERS) for _ in range(self.letters))
