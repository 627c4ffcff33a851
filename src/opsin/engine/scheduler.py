"""What the next step computes: each sequence catches up within a budget of rows. Pure Python, no device.

There are no phases. Decode, chunked prefill and restarted sequences are one rule: rows known minus rows computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsin.engine.pages import PagePool, pages_for
from opsin.engine.sequence import Sequence


@dataclass(frozen=True)
class Slice:
    """`rows` rows of a sequence, from its `computed` on. `wanted`: the last one's logits choose the next id."""

    sequence: Sequence
    start: int
    rows: int
    wanted: bool


Plan = list[Slice]


class Scheduler:
    """Sequences that run (they hold pages) and that wait, oldest first."""

    def __init__(self, pool: PagePool, *, sequences: int) -> None:
        self.pool, self.most = pool, sequences
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence; its pages are free."""
        self._release(sequence)
        for queue in (self.running, self.waiting):
            if sequence in queue:
                queue.remove(sequence)

    def plan(self, budget: int) -> Plan:
        """At most `budget` rows. Sequences that lack one row come first, so that streams go on."""
        self._admit()
        plan: Plan = []
        for sequence in sorted(self.running, key=lambda s: s.waiting_rows > 1):
            rows = min(sequence.waiting_rows, budget)
            if rows <= 0 or sequence not in self.running:
                continue
            if not self._reserve(sequence, sequence.computed + rows, plan):
                continue
            wanted = sequence.computed + rows == sequence.known
            plan.append(Slice(sequence, sequence.computed, rows, wanted))
            budget -= rows
        return plan

    def _admit(self) -> None:
        """Start waiting sequences while there is room for all that they know."""
        while self.waiting and len(self.running) < self.most:
            promised = sum(max(0, pages_for(s.known + 1) - len(s.pages)) for s in self.running)
            if pages_for(self.waiting[0].known + 1) + promised > self.pool.free:
                return
            self.running.append(self.waiting.pop(0))

    def _reserve(self, sequence: Sequence, rows: int, plan: Plan) -> bool:
        """Pages for `rows` rows; where there are none, the youngest sequence not in this plan waits again."""
        need = pages_for(rows) - len(sequence.pages)
        while need > self.pool.free:
            planned = {id(part.sequence) for part in plan}
            victim = next((s for s in reversed(self.running) if id(s) not in planned), None)
            if victim is None:
                return False
            self._restart_later(victim)
            if victim is sequence:
                return False
        sequence.pages += self.pool.take(max(0, need)) or []
        return True

    def _restart_later(self, sequence: Sequence) -> None:
        """Its rows are computed again, to the same bits."""
        self._release(sequence)
        sequence.computed = 0
        self.running.remove(sequence)
        self.waiting.insert(0, sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.pages)
        sequence.pages = []
