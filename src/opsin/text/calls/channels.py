"""Replies as messages of channels, as gpt-oss writes them (harmony): analysis is thought, final is the answer.

A message is a header, `<|message|>`, its text and an end. One that is to somebody (`to=functions.NAME`) is a call. The
first message's `<|start|>assistant` stands in the prompt.
"""

from __future__ import annotations

import re

from opsin.text.calls.arguments import read_value
from opsin.text.calls.deltas import CallArguments, CallStart, Content, Thought
from opsin.text.calls.incoming import Steps
from opsin.text.calls.reply_parser import ReplyParser
from opsin.text.calls.shapes import Notation

_TO = re.compile(r"to=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
_HEADS = ("<|start|>", "<|channel|>", "to=")
_MESSAGE = "<|message|>"


class ChannelParser(ReplyParser):
    """Takes the text of one reply piece by piece, from behind the prompt's `<|start|>assistant`."""

    _calls_told = 0

    def _reply(self) -> Steps[None]:
        while True:
            space = yield from self._incoming.space()
            if not (yield from self._incoming.peek()):
                return
            if (yield from self._begins_header()):
                header = yield from self._header()
                yield from self._body(header)
            else:
                self._tell_text(space)
                yield from self._incoming.until(_ENDS, self._tell_text)
                yield from self._take_ends()

    def _begins_header(self) -> Steps[bool]:
        for head in _HEADS:
            if (yield from self._incoming.starts(head)):
                return True
        return False

    def _header(self) -> Steps[str]:
        """All up to the text of a message. What never becomes one is told as it stands."""
        found: list[str] = []
        marker = yield from self._incoming.until((_MESSAGE,), found.append)
        header = "".join(found)
        if not marker:
            self._tell_text(header)
            return ""
        self._incoming.take(len(marker))
        return header

    def _body(self, header: str) -> Steps[None]:
        to, channel = _TO.search(header), _CHANNEL.search(header)
        name = to[1].removeprefix("functions.") if to else ""
        if name and self.tools_given and (yield from self._starts_object()):
            self._made.append(CallStart(self._calls_told, None, name))
            yield from read_value(self._incoming, Notation.JSON, self._tell_argument)
            self._calls_told += 1
            yield from self._incoming.space()
        elif name and self.tools_given:
            self._tell_text(header + _MESSAGE)
            yield from self._incoming.until(_ENDS, self._tell_text)
        elif channel is not None and channel[1] == "analysis":
            yield from self._incoming.until(_ENDS, self._tell_analysis)
        else:
            yield from self._incoming.until(_ENDS, self._tell_text)
        yield from self._take_ends()

    def _starts_object(self) -> Steps[bool]:
        return (yield from self._incoming.literal(("{",), take=False)) is not None

    def _take_ends(self) -> Steps[None]:
        for end in ("<|end|>", "<|call|>", "<|return|>"):
            if (yield from self._incoming.starts(end)):
                self._incoming.take(len(end))

    def _tell_argument(self, text: str) -> None:
        self._made.append(CallArguments(self._calls_told, text))

    def _tell_analysis(self, text: str) -> None:
        self._made.append(Thought(text))

    def _tell_text(self, text: str) -> None:
        self._made.append(Content(text))
