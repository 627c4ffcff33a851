"""What a model's reply is made of: thoughts, the answer, and calls of tools. Found from its chat template."""

from opsin.text.calls.call_grammar import CallSpelling
from opsin.text.calls.deltas import CallArguments, CallStart, Content, ReplyDelta, Thought
from opsin.text.calls.reply_format import ReplyFormat
from opsin.text.calls.reply_parser import ReplyParser

__all__ = [
    "CallArguments",
    "CallStart",
    "Content",
    "ReplyDelta",
    "ReplyFormat",
    "ReplyParser",
    "CallSpelling",
    "Thought",
]
