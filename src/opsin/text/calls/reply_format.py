"""How the replies of a model are made: where thoughts, the answer and calls of tools begin and end.

It is found from the chat template by trying it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from opsin.errors import ModelError, RequestError
from opsin.text.budget import LimitError
from opsin.text.calls.reply_parser import Beginning, ReplyParser
from opsin.text.calls.thoughts import Around, Turn, find_turn
from opsin.text.origin import spans_of
from opsin.text.template import ChatTemplate

_NOTHING = Turn("", None, None)
Tools = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class ReplyFormat:
    """The format of a model's replies.

    Attributes:
        turn: what opens a turn, and the markers of thoughts and of the answer.
    """

    turn: Turn = _NOTHING

    @classmethod
    def of(cls, template: ChatTemplate) -> ReplyFormat:
        """Some fifteen renderings: once a model, before threads share it. What cannot be found is left out."""
        try:
            return cls(find_turn(template.source, template.trial()))
        except (RequestError, ModelError) as error:
            assert isinstance(error.__cause__, LimitError)
            return cls()

    @property
    def thoughts(self) -> Around | None:
        """The markers of thoughts; None for a model that shows none."""
        return self.turn.thoughts

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Every text that the parser looks for."""
        found = [*_ends(self.turn.thoughts), *_ends(self.turn.answer)]
        return tuple(dict.fromkeys(filter(None, found)))

    def shows(self, token: str) -> bool:
        """Whether a control token of this text must be decoded to it, since the parser looks for it."""
        return any(token in literal for literal in self.literals) if token.strip() else False

    def beginning(self, prompt: str) -> Beginning:
        """Where a prompt, as the template made it, leaves the reply: its markers count, those of people do not."""
        thoughts, opener = self.turn.thoughts, self.turn.opener
        if thoughts is None or (opener and (start := _last(prompt, opener)) < 0):
            return Beginning()
        start = start + len(opener) if opener else 0
        opened = _last(prompt, thoughts.open, start) if thoughts.open else start
        closed = _last(prompt, thoughts.close, start)
        if closed > opened or (closed >= 0 and not thoughts.open):
            return Beginning(answering=True, begun=bool(prompt[closed + len(thoughts.close) :].strip()))
        if opened >= 0:
            return Beginning(thinking=True, begun=bool(thoughts.open and prompt[opened + len(thoughts.open) :].strip()))
        begun = bool(opener and prompt[start:].strip())
        return Beginning(answering=begun, begun=begun)

    def parser(self, *, tools: Tools | None = None, prompt: str = "") -> ReplyParser:
        """A parser for one reply to this prompt. Without `tools` it looks for no calls."""
        return ReplyParser(self.turn.thoughts, self.turn.answer, self.beginning(prompt))


def _ends(around: Around | None) -> Iterator[str]:
    if around is not None:
        yield from (around.open, around.close)


def _last(text: str, part: str, start: int = 0) -> int:
    """Where this part stands last behind a place, outside of what people wrote; -1 where it does not."""
    spans = spans_of(text)
    end = len(text)
    while (place := text.rfind(part, start, end)) >= 0:
        before = bisect_left(spans, (place + len(part), 0))  # spans that begin before its end
        if not before or spans[before - 1][1] <= place:
            return place
        end = place + len(part) - 1
    return -1
