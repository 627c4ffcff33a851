"""Pieces of a reply, as they come: what a model thought, what it said, what it calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thought:
    """More of what was thought before the answer."""

    text: str


@dataclass(frozen=True)
class Content:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call begins. Calls are counted from 0; `id` is the model's own, where its format has one."""

    index: int
    id: str | None
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of a call's arguments: JSON, in pieces that may end anywhere."""

    index: int
    text: str


ReplyDelta = Thought | Content | CallStart | CallArguments


def joined(deltas: list[ReplyDelta]) -> list[ReplyDelta]:
    """The same, with neighbours of one kind as one, and without empty ones."""
    made: list[ReplyDelta] = []
    for delta in deltas:
        last = made[-1] if made else None
        if not isinstance(delta, CallStart) and not delta.text:
            continue
        if isinstance(delta, Thought) and isinstance(last, Thought):
            made[-1] = Thought(last.text + delta.text)
        elif isinstance(delta, Content) and isinstance(last, Content):
            made[-1] = Content(last.text + delta.text)
        elif isinstance(delta, CallArguments) and isinstance(last, CallArguments) and last.index == delta.index:
            made[-1] = CallArguments(last.index, last.text + delta.text)
        else:
            made.append(delta)
    return made
