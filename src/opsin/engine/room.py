"""Room in the cache for a job that is no sequence.

Thread: the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from opsin.engine.engine import Engine
from opsin.engine.rows import PromptRows
from opsin.errors import RequestError


@dataclass(frozen=True)
class Room:
    """Pages for its rows and for what they remember, and two slots for states where the model has any."""

    pages: list[int]
    memory: list[int]
    states: list[int]

    @classmethod
    def of(cls, engine: Engine, rows: PromptRows) -> Self:
        """Raises RequestError where there is none now."""
        memory = engine.memory.borrow(rows)
        try:
            pages = engine.borrow_pages(rows.count)
            try:
                return cls(pages, memory, [] if engine.states is None else engine.states.borrow())
            except RequestError:
                engine.return_pages(pages)
                raise
        except RequestError:
            engine.memory.pool.give_back(memory)
            raise

    def give_back(self, engine: Engine) -> None:
        engine.return_pages(self.pages)
        engine.memory.pool.give_back(self.memory)
        if engine.states is not None:
            engine.states.pool.give_back(self.states)
