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
from opsin.text.calls.call_grammar import CallGrammar, CallSpelling
from opsin.text.calls.call_reader import Tools
from opsin.text.calls.channels import ChannelParser
from opsin.text.calls.discovery import find_calls, shows_tools
from opsin.text.calls.instructions import introduced
from opsin.text.calls.known import HERMES, Known, completed_turn, known
from opsin.text.calls.reply_parser import Beginning, ReplyParser
from opsin.text.calls.shapes import CallShape
from opsin.text.calls.thoughts import Around, Turn, find_turn
from opsin.text.calls.trials import tools
from opsin.text.origin import spans_of
from opsin.text.template import ChatTemplate

_NOTHING = Turn("", None, None)


@dataclass(frozen=True)
class ReplyFormat:
    """The format of a model's replies.

    Attributes:
        turn: what opens a turn, and the markers of thoughts and of the answer.
        calls: how calls are written.
        lead: what a reply begins with where the prompt ends with it.
        channels: whether replies are messages of channels, as gpt-oss writes them.
        told: whether the template shows tools; else `introduced` does.
    """

    turn: Turn = _NOTHING
    calls: CallShape = HERMES
    lead: str = ""
    channels: bool = False
    told: bool = False

    @classmethod
    def of(cls, template: ChatTemplate) -> ReplyFormat:
        """Some twenty renderings: once a model, before threads share it.

        A template that shows no calls, or that cannot be tried in time, has them in the way of Hermes.
        """
        one = known(template.source) or Known(())
        try:
            trial = template.trial()
            turn = completed_turn(find_turn(template.source, trial), one)
            shape = one.calls or find_calls(trial, template.capabilities.calls, turn)
            return cls(turn, shape or HERMES, one.lead, one.channels, shows_tools(trial, tools()))
        except (RequestError, ModelError) as error:
            assert isinstance(error.__cause__, LimitError)
            return cls(completed_turn(_NOTHING, one), one.calls or HERMES, one.lead, one.channels)

    @property
    def thoughts(self) -> Around | None:
        """The markers of thoughts; None for a model that shows none."""
        return self.turn.thoughts

    @property
    def has_parts(self) -> bool:
        """Whether replies have more than text in them where nothing may be called: thoughts, markers, channels."""
        return self.channels or self.turn.thoughts is not None or self.turn.answer is not None

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Every text that the parser looks for."""
        opener = self.turn.opener if self.turn.answer is not None else ""
        found = [opener, *_ends(self.turn.thoughts), *_ends(self.turn.answer), *self.calls.literals()]
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
        shape = self.calls if tools else None
        if self.channels:
            return self._after(ChannelParser(self.turn, Beginning(), None, tools or ()), prompt)
        parser = ReplyParser(self.turn, self.beginning(prompt), shape, tools or ())
        if self.lead and prompt.endswith(self.lead):
            parser.feed(self.lead)
        return parser

    def introduced(self, messages: Sequence[Mapping[str, object]], tools: Tools) -> list[Mapping[str, object]]:
        """A conversation for a template: where it does not tell of tools, the system's message does."""
        return [*messages] if self.told or not tools else introduced(messages, tools, self.calls)

    @property
    def trigger(self) -> str:
        """What a call begins with, behind which a grammar may hold it; "" where any text may be one."""
        frame = self.calls.frame
        return frame.call_open if self.channels else (frame.section_open or frame.call_open).strip()

    def grammar(
        self, tools: Tools, spelling: CallSpelling, *, required: bool, several: bool = True, prompt: str = ""
    ) -> str:
        """Calls of these tools, in llguidance's Lark; thoughts stand before it.

        Args:
            required: whether a reply is such calls and nothing else; if not, it is held to this from `trigger` on.
            several: whether there may be several, where the format has that.

        Raises RequestError where there are no tools, or too many.
        """
        frame = self.calls.frame
        opening = frame.opening
        if self.channels and not required:
            opening = frame.call_open
        if self.lead and required and prompt.endswith(self.lead):
            opening = opening.removeprefix(self.lead)
        grammar = CallGrammar(self.calls, tools, spelling)
        return grammar.text(opening, several=several and frame.several)

    def _after(self, parser: ReplyParser, prompt: str) -> ReplyParser:
        """A parser that has read what a prompt begins a reply with."""
        start = _last(prompt, self.turn.opener)
        if start >= 0:
            parser.feed(prompt[start + len(self.turn.opener) :])
        return parser


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
