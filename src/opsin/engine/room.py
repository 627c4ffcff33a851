"""Room in the cache for a job that is no sequence.

Thread: the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from opsin.engine.engine import Engine
from opsin.engine.rows import PromptRows
from opsin.engine.windows import Held, Reach, reaching
from opsin.errors import RequestError


@dataclass(frozen=True)
class Room:
    """Pages for its rows and for what they remember, and two slots for states where the model has any.

    `near` is what windows hold of it by now.
    """

    pages: list[int]
    memory: list[int]
    states: list[int]
    near: Held = field(default_factory=Held)

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

    def reach(self, engine: Engine) -> Reach:
        """Places for windows, step by step."""
        return reaching(engine.windows, self.near, self.pages)

    def give_back(self, engine: Engine) -> None:
        engine.return_pages(self.pages)
        engine.windows.release(self.near)
        engine.memory.pool.give_back(self.memory)
        if engine.states is not None:
            engine.states.pool.give_back(self.states)
