"""What the next step computes: each sequence catches up within a budget of rows. Pure Python, no device.

There are no phases. Decode, chunked prefill, prompts whose beginning is cached and restarted sequences are one rule:
rows known minus rows computed. Rows of media wait until the media is encoded; rows that see each other stay together.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opsin.engine.memory import MemoryPages
from opsin.engine.pages import PagePool, pages_for
from opsin.engine.rows import Placed
from opsin.engine.sequence import Sequence
from opsin.ops import PAGE
from opsin.spans import MediaSpan

WRITES = 512  # rows of memory in a step: each costs about as much as a row of text
BESIDE_MEDIA = 32  # rows before media that may wait for it: alone they cost a step, which reads all weights


@dataclass(frozen=True)
class Slice:
    """`rows` rows of a sequence, from its `computed` on. `wanted`: the last one's logits choose the next id.

    `writes`: rows of what it remembers that are written before. None of its rows is computed until all are.
    """

    sequence: Sequence
    start: int
    rows: int
    wanted: bool
    writes: int = 0


Plan = list[Slice]


def always(span: MediaSpan) -> bool:
    """All media is there."""
    return True


class Scheduler:
    """Sequences that run (they hold pages) and that wait, oldest first. It lives on the engine's thread.

    Args:
        pool: the pages that they share.
        sequences: how many may run at once.
        rows: what a step can hold; a plan's budget may be less.
        ready: whether the embeddings of some media are there.
        memory: the pages of what they remember.
    """

    def __init__(
        self, pool: PagePool, *, sequences: int, rows: int, ready: Callable[[MediaSpan], bool] = always,
        memory: MemoryPages | None = None,
    ) -> None:  # fmt: skip
        self.pool, self.most, self.rows, self.ready = pool, sequences, rows, ready
        self.memory = MemoryPages(pool.count) if memory is None else memory
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self._passed: Sequence | None = None  # one whose media found no room in the step before

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence; its pages are free."""
        self._release(sequence)
        for queue in (self.running, self.waiting):
            if sequence in queue:
                queue.remove(sequence)

    def plan(self, budget: int) -> Plan:
        """At most `budget` rows, but for one piece of media whose rows see each other: it may take what a step holds.

        Sequences that lack one row come first, so that streams go on; before them one whose media was passed over.
        A few rows of which nobody hears anything before media is encoded are done with the media's.
        """
        self._admit()
        plan: Plan = []
        room, writing, passed, self._passed = self.rows, WRITES, self._passed, None
        for sequence in sorted(self.running, key=lambda s: (s is not passed, s.waiting_rows > 1)):
            end = self._end(sequence, min(budget, room), room)
            if end <= sequence.computed or sequence not in self.running:
                continue
            if not self._reserve(sequence, end, plan):
                continue
            left = sequence.memory.left
            writes = min(left, writing)
            rows = end - sequence.computed if writes == left else 0
            if rows or writes:
                plan.append(Slice(sequence, sequence.computed, rows, rows > 0 and end == sequence.known, writes))
            budget, room, writing = budget - rows, room - rows, writing - writes
        few = sum(part.rows for part in plan) <= BESIDE_MEDIA
        return [] if few and all(self._ends_at_missing(part) for part in plan) else plan

    def missing(self) -> Iterator[tuple[Sequence, MediaSpan]]:
        """Media that running sequences still need and that is not encoded, in the order in which rows need it."""
        for sequence in self.running:
            for placed in sequence.lacking:
                if not self._is_there(placed):
                    yield from ((sequence, span) for span in placed.whole if not self.ready(span))

    def needed(self) -> set[bytes]:
        """Digests of the media of which rows are still to be computed."""
        return {span.digest for s in self.running for p in s.lacking for span in p.whole}

    def computed(self, sequence: Sequence, rows: int, writes: int = 0) -> None:
        """Some rows of it, and of what it remembers, are in the cache. Full pages can be found from now on."""
        before, sequence.computed = sequence.computed // PAGE, sequence.computed + rows
        sequence.tell_progress()
        full = sequence.computed // PAGE
        self.memory.wrote(sequence.memory, writes)
        if full > before:
            for page, key in list(zip(sequence.pages, sequence.keys(full), strict=False))[before:]:
                self.pool.keep(page, key)

    def _ends_at_missing(self, part: Slice) -> bool:
        """Whether it goes up to media that is not there."""
        end = part.start + part.rows
        return any(p.start == end and not self._is_there(p) for p in part.sequence.lacking)

    def _end(self, sequence: Sequence, budget: int, room: int) -> int:
        """The row up to which it may be computed.

        That is `budget` rows, nothing of media that is not there, and media whose rows see each other to its end or
        not at all.
        """
        start = sequence.computed
        end = min(sequence.known, start + budget)
        if budget <= 0:
            return start
        for placed in sequence.lacking:
            if placed.start >= end:
                break
            if not self._is_there(placed):
                return max(start, placed.start)
            if placed.span.atomic and end < placed.end:
                if placed.start <= start and placed.end - start <= room:
                    return placed.end
                if placed.start <= start:
                    self._passed = self._passed or sequence
                return max(start, placed.start)
        return end

    def _admit(self) -> None:
        """Start waiting sequences while there is room for all that they know. Cached rows count as computed.

        One whose next rows a running sequence is about to compute waits for them, and holds nobody up.
        """
        for sequence in list(self.waiting):
            # Not all rows: the last one's logits are wanted.
            keys = sequence.keys((sequence.known - 1) // PAGE)
            cached = self.pool.find(keys)
            if len(cached) < len(keys) and self._is_coming(keys[len(cached)], len(cached)):
                continue
            promised = sum(max(0, s.all_pages - len(s.pages)) for s in self.running)
            need = sequence.all_pages - len(cached) + promised
            if len(self.running) >= self.most or need > self.pool.free - self.pool.count_idle(cached):
                return
            if sum(self.memory.need(s.memory) for s in (sequence, *self.running)) > self.memory.pool.free:
                return
            for page in cached:
                self.pool.share(page)
            sequence.pages, sequence.computed = cached, len(cached) * PAGE
            self._adopt_tail(sequence, keys[len(cached) - 1] if cached else b"")
            if not sequence.was_started:
                sequence.start()
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _adopt_tail(self, sequence: Sequence, before: bytes) -> None:
        """Go on in the last page of a sequence that ended, where it began with the same rows."""
        start = sequence.computed
        page, rows = self.pool.find_tail(before, sequence.names(start, min(start + PAGE, sequence.known - 1)))
        if rows:
            self.pool.adopt(page)
            sequence.pages.append(page)
            sequence.computed += rows

    def _is_coming(self, key: bytes, block: int) -> bool:
        """Whether a running sequence has this block ahead of it."""
        end = (block + 1) * PAGE
        return any(s.computed < end <= s.known and s.keys(block + 1)[block] == key for s in self.running)

    def _reserve(self, sequence: Sequence, rows: int, plan: Plan) -> bool:
        """Pages for `rows` rows, and for the media that they remember; False where there are none."""
        for placed in sequence.memory.unmet:
            if placed.start >= rows:
                break
            while not self.memory.hold(sequence.memory, placed):
                if not self._make_room(sequence, plan, [s for s in self.running if s.memory.pages or s is sequence]):
                    return False
        need = max(0, pages_for(rows) - len(sequence.pages))
        while need > self.pool.free:
            if not self._make_room(sequence, plan, self.running):
                return False
        sequence.pages += self.pool.take(need) or []
        return True

    def _make_room(self, sequence: Sequence, plan: Plan, among: list[Sequence]) -> bool:
        """The youngest of some sequences that is not in this plan waits again; False where that leaves nobody else."""
        planned = {id(part.sequence) for part in plan}
        victim = next((s for s in reversed(among) if id(s) not in planned), None)
        if victim is None:
            return False
        self._restart_later(victim)
        return victim is not sequence

    def _is_there(self, placed: Placed) -> bool:
        """Whether rows after some media can be computed: its embeddings are there, or what is remembered of it."""
        if all(self.ready(span) for span in placed.whole):
            return True
        return not placed.span.rows and self.memory.has(placed)

    def _restart_later(self, sequence: Sequence) -> None:
        """Its rows are computed again, to the same bits, but for those that are still cached then."""
        self._release(sequence)
        sequence.computed = 0
        self.running.remove(sequence)
        self.waiting.insert(0, sequence)

    def _release(self, sequence: Sequence) -> None:
        full, rest = divmod(sequence.computed, PAGE)
        if rest and sequence.pages:
            before = sequence.keys(full)[-1] if full else b""
            self.pool.keep_tail(sequence.pages[full], before, sequence.names(full * PAGE, sequence.computed))
        self.pool.give_back(sequence.pages)
        self.memory.release(sequence.memory)
        sequence.pages = []
