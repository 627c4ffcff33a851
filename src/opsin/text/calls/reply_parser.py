"""Parses a reply while it comes: thoughts, the answer, calls of tools.

What does not fit a format is part of the answer: nothing is an error, and nothing is lost but whitespace
around markers.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsin.text.calls.call_reader import CallReader, Tools
from opsin.text.calls.deltas import Content, ReplyDelta, Thought, joined
from opsin.text.calls.incoming import Incoming, Steps, atoms
from opsin.text.calls.shapes import CallShape
from opsin.text.calls.thoughts import Turn


@dataclass(frozen=True)
class Beginning:
    """Where a prompt leaves a reply.

    Attributes:
        thinking: it opened thoughts, and did not close them.
        answering: it closed thoughts, or began the answer.
        begun: it holds the beginning of the thoughts or of the answer, so that whitespace counts.
    """

    thinking: bool = False
    answering: bool = False
    begun: bool = False


class ReplyParser:
    """Takes the text of one reply piece by piece. For one thread at a time."""

    def __init__(self, turn: Turn, beginning: Beginning, shape: CallShape | None = None, tools: Tools = ()) -> None:
        answer = turn.answer
        self.tools_given = bool(tools)
        self._thoughts = turn.thoughts
        # An answer with a marker may be a turn of its own behind the thoughts.
        self._noise = {text for text in (turn.opener, answer.open, answer.close) if text} if answer else set()
        self._beginning = beginning
        self._incoming = Incoming()
        self._made: list[ReplyDelta] = []
        self._calls = CallReader(shape, tools, self._incoming, self._made.append) if shape is not None else None
        self._space = ""  # whitespace that is only told if more of the same comes
        # Whether whitespace that comes next stands behind a marker.
        self._fresh = (beginning.thinking or beginning.answering) and not beginning.begun
        self._steps = self._reply()
        next(self._steps, None)

    def feed(self, text: str) -> list[ReplyDelta]:
        """More of the reply: what it tells by now."""
        self._incoming.add(text)
        return self._go_on()

    def finish(self) -> list[ReplyDelta]:
        """No more comes: what was held back."""
        self._incoming.end()
        return self._go_on()

    def _go_on(self) -> list[ReplyDelta]:
        next(self._steps, None)
        made = joined(self._made)
        self._made.clear()
        return made

    def _reply(self) -> Steps[None]:
        if self._beginning.thinking:
            yield from self._think()
        yield from self._think_more()
        if self._calls is not None and self._calls.is_bare:
            yield from self._call(self._calls)
        yield from self._answer()

    def _think_more(self) -> Steps[None]:
        """Thoughts that begin here."""
        while (yield from self._opens_thoughts()):
            self._fresh = True
            yield from self._think()

    def _opens_thoughts(self) -> Steps[bool]:
        if self._thoughts is None or not self._thoughts.open or self._beginning.answering:
            return False
        return (yield from self._incoming.literal(atoms(self._thoughts.open))) is not None

    def _think(self) -> Steps[None]:
        assert self._thoughts is not None
        close = yield from self._incoming.until((self._thoughts.close,), self._tell_thought)
        self._incoming.take(len(close))
        if not close and self._space and not self._fresh:
            self._made.append(Thought(self._space))
        self._space, self._fresh = "", True

    def _answer(self) -> Steps[None]:
        calls = self._calls
        trigger = calls.trigger if calls is not None else ""
        markers = {*self._noise, trigger} - {""}
        while marker := (yield from self._incoming.until(markers, self._tell)):
            if marker == trigger and calls is not None:
                yield from self._call(calls)
            else:
                self._incoming.take(len(marker))
                self._space, self._fresh = "", True
        if self._space and not self._fresh:
            self._made.append(Content(self._space))

    def _call(self, calls: CallReader) -> Steps[None]:
        """Calls that begin here; or, where these are none, text. Behind calls there may be thoughts."""
        left = yield from calls.read()
        if left is None:
            self._tell(self._incoming.recorded() or self._incoming.take(len(calls.trigger)))
            return
        self._space, self._fresh = "", True
        self._tell(left)
        yield from self._think_more()

    def _tell(self, text: str) -> None:
        text = self._trimmed(text)
        if not self._noise and self._calls is None and not self._fresh:  # no marker comes for which it should wait
            text, self._space = text + self._space, ""
        if text:
            self._made.append(Content(text))

    def _tell_thought(self, text: str) -> None:
        if text := self._trimmed(text):
            self._made.append(Thought(text))

    def _trimmed(self, text: str) -> str:
        """A text without the whitespace at its end, which waits, and behind a marker without that at its beginning."""
        text = (self._space + text).lstrip() if self._fresh else self._space + text
        told = text.rstrip()
        self._space = text[len(told) :]
        self._fresh = self._fresh and not told
        return told
