"""Where one answer stands in its grammar: a constraint of the engine.

Thread: the submitter's makes one; then the engine's, and the masks' thread, never both at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opsin.errors import RequestError
from opsin.grammar.grammar import Trigger

if TYPE_CHECKING:
    from llguidance import LLMatcher

_TOO_COMPLEX = ("ParserTooComplex", "LexerTooComplex")


class Matcher:
    """One answer's way through a grammar of a vocabulary of so many tokens."""

    def __init__(self, matcher: LLMatcher, tokens: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros(-(-tokens // 32) * 4, np.uint8)
        self._address = self._bits.ctypes.data
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether nothing may follow, but for an end of the answer."""
        return self._ended

    def mask(self) -> npt.NDArray[np.uint8]:
        """Bits of the ids that may come next."""
        self._matcher.unsafe_compute_mask_ptr(self._address, len(self._bits))
        self._check()
        return self._bits

    def forced(self) -> list[int]:
        """Ids of the only text that may come next, as the tokenizer would write it."""
        ids: list[int] = [] if self._ended else self._matcher.compute_ff_tokens()
        self._check()
        return ids

    def accept(self, id: int) -> None:
        """Take the next id."""
        if not self._matcher.consume_token(id):
            self._check()
        self._ended = self._matcher.is_stopped()

    def takes(self, ids: Sequence[int]) -> bool:
        """Whether these may follow; then they are taken."""
        if self._matcher.validate_tokens([*ids]) != len(ids):
            return False
        for id in ids:
            self.accept(id)
        return True

    def _check(self) -> None:
        if self._matcher.is_error():
            if self._matcher.stop_reason() in _TOO_COMPLEX:
                raise RequestError("the grammar is too complex to go on", hint="give a simpler grammar or schema")
            raise RequestError("the grammar failed", hint="give a simpler grammar or schema")


class LazyMatcher:
    """Lets everything be written until a trigger was, then holds the rest to a grammar.

    Where what came with the end of a trigger cannot begin the grammar, it was none.
    """

    def __init__(
        self, start: Callable[[], Matcher], triggers: Sequence[Trigger], piece: Callable[[int], bytes],
        spell: Callable[[bytes], list[int]],
    ) -> None:  # fmt: skip
        self._start, self._piece, self._spell = start, piece, spell
        self._ids = {trigger.id: trigger for trigger in triggers if trigger.id is not None}
        self._texts = [(trigger.text.encode(), trigger.inside) for trigger in triggers if trigger.text]
        self._longest = max((len(text) for text, _ in self._texts), default=0)
        self._tail: deque[tuple[int, bytes]] = deque()  # tokens in which a trigger may have begun
        self._matcher: Matcher | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing may follow, but for an end of the answer."""
        return self._matcher is not None and self._matcher.ended

    def mask(self) -> npt.NDArray[np.uint8] | None:
        """Bits of the ids that may come next; None as long as no trigger was written."""
        return None if self._matcher is None else self._matcher.mask()

    def forced(self) -> list[int]:
        """Ids of the only text that may come next; none as long as no trigger was written."""
        return [] if self._matcher is None else self._matcher.forced()

    def accept(self, id: int) -> None:
        """Take the next id."""
        if self._matcher is not None:
            self._matcher.accept(id)
        elif id in self._ids:
            self._try([id] if self._ids[id].inside else [])
        elif self._texts:
            self._tail.append((id, self._piece(id)))
            self._look()

    def _look(self) -> None:
        """For the first trigger that the last token completes; then forget what no trigger can begin in."""
        seen = b"".join(piece for _, piece in self._tail)
        found = [(place, -len(text), inside) for text, inside in self._texts if (place := seen.find(text)) >= 0]
        if found:
            place, length, inside = min(found)
            if self._try(self._ids_from(place if inside else place - length)):
                return
        while self._tail and (found or len(seen) - len(self._tail[0][1]) >= self._longest - 1):
            seen = seen[len(self._tail.popleft()[1]) :]

    def _ids_from(self, start: int) -> list[int]:
        """Ids that spell the tail from a byte on. A token that this byte cuts is spelt with others."""
        ids: list[int] = []
        for id, piece in self._tail:
            if start <= 0:
                ids.append(id)
            elif start < len(piece):
                ids += self._spell(piece[start:])
            start -= len(piece)
        return ids

    def _try(self, ids: Sequence[int]) -> bool:
        matcher = self._start()
        if matcher.takes(ids):
            self._matcher = matcher
        return self._matcher is not None
