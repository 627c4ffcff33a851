"""What holds a reply that may begin with thoughts: how long they may be, and a form of what comes after them.

Thread: the submitter's makes one; then the engine's accepts ids and the masks' thread makes masks, never both at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from opsin.engine.constraint import Bits, Constraint

_WIDEST = 3  # bytes of a character that may still be missing


@dataclass(frozen=True)
class ThoughtMarkers:
    """How thoughts begin and end, as bytes and as ids. Without `opens` they begin with the reply, if at all.

    Attributes:
        piece: the bytes of an id.
        opening: ids that begin thoughts.
        closing: ids that end them.
        spaces: ids of what models write between thoughts and the rest, though no form has it: the ends of lines.
    """

    opens: bytes
    closes: bytes
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    spaces: tuple[int, ...]
    piece: Callable[[int], bytes]


class _State(Enum):
    BEFORE = "before"  # thoughts may begin
    THINKING = "thinking"
    CLOSING = "closing"  # ids that end thoughts are all that may come
    AFTER = "after"


class Thinking:
    """A constraint of one reply. Thoughts themselves are free, but for their length.

    After `most` tokens of them their end is forced, behind a whole character; with 0 as soon as they begin. What they
    cost is counted over the whole reply: a model may think again.

    Args:
        width: of the logits.
        thinking: whether the prompt began thoughts already; None where it ended them, so that none may come.
        most: tokens of thoughts; None for no limit.
        form: what holds the rest of the reply.
        ends: ids that end an answer. None of them may come in thoughts where a form is to be met.
    """

    def __init__(
        self, markers: ThoughtMarkers, width: int, *, thinking: bool | None, most: int | None = None,
        form: Constraint | None = None, ends: Collection[int] = (),
    ) -> None:  # fmt: skip
        self._markers, self._width, self._left, self._form, self._ends = markers, width, most, form, ends
        self._state = _State.AFTER if thinking is None else _State.BEFORE
        self._written = b""  # the end of it, in which a marker may stand
        self._forced: list[int] = []
        self._may_space = False
        if thinking:
            self._begin()

    @property
    def ended(self) -> bool:
        return self._form is not None and self._state in (_State.BEFORE, _State.AFTER) and self._form.ended

    def mask(self) -> Bits | None:
        if self._state is _State.CLOSING:
            return self._only(self._forced[:1])
        if self._form is None:
            return None
        if self._state is _State.THINKING:
            return self._no_ends
        mask = self._form.mask()
        if mask is None:
            return None
        more = self._markers.spaces if self._may_space else ()
        if self._state is _State.BEFORE and len(self._markers.opening) == 1:
            more = self._markers.opening
        return _also(mask, more) if more else mask

    def forced(self) -> Sequence[int]:
        if self._state is _State.CLOSING:
            return self._forced
        return () if self._form is None or self._state is not _State.AFTER or self._may_space else self._form.forced()

    def accept(self, id: int) -> None:
        if self._state is _State.CLOSING:
            self._forced.pop(0)
            if not self._forced:
                self._end()
            return
        self._written = (self._written + self._markers.piece(id))[-self._longest :]
        if self._state is _State.THINKING:
            self._think()
        elif self._markers.opens and self._written.endswith(self._markers.opens):
            self._begin()
        elif self._form is not None:
            self._state, spaces = _State.AFTER, self._markers.spaces if self._may_space else ()
            self._may_space = False
            if id not in spaces:
                self._form.accept(id)

    def _begin(self) -> None:
        self._state, self._written = _State.THINKING, b""
        self._force_when_due()

    def _think(self) -> None:
        if self._markers.closes in self._written:
            self._end()
            return
        if self._left is not None:
            self._left -= 1
        self._force_when_due()

    def _force_when_due(self) -> None:
        if self._left is not None and self._left <= 0 and not _is_cut(self._written):
            self._state, self._forced = _State.CLOSING, list(self._markers.closing)

    def _end(self) -> None:
        self._state, self._written, self._may_space = _State.AFTER, b"", True

    @property
    def _longest(self) -> int:
        return max(len(self._markers.opens), len(self._markers.closes)) + 64

    @cached_property
    def _no_ends(self) -> Bits:
        bits = np.ones(self._width, bool)
        bits[list(self._ends)] = False
        return np.packbits(bits, bitorder="little")

    def _only(self, ids: Collection[int]) -> Bits:
        bits = np.zeros(self._width, bool)
        bits[list(ids)] = True
        return np.packbits(bits, bitorder="little")


def _also(mask: Bits, ids: Collection[int]) -> Bits:
    """A mask that lets these come, too."""
    made = mask.copy()
    for id in ids:
        made[id >> 3] |= 1 << (id & 7)
    return made


def _is_cut(text: bytes) -> bool:
    """Whether it ends within a character."""
    for missing, byte in enumerate(reversed(text[-_WIDEST:]), 1):
        if byte >= 0xC0:
            return missing < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False
