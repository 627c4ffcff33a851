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
from opsin.engine.states import Start, StateSlots, places
from opsin.engine.windows import WindowPlaces, deepest
from opsin.ops import PAGE
from opsin.spans import MediaSpan

WRITES = 512  # rows of memory in a step: each costs about as much as a row of text
BESIDE_MEDIA = 32  # rows before media that may wait for it: alone they cost a step, which reads all weights


@dataclass(frozen=True)
class Slice:
    """`rows` rows of a sequence, from its `computed` on. `wanted`: the last one's logits choose the next id.

    `writes`: rows of what it remembers that are written before. None of its rows is computed until all are.
    `guesses`: ids of rows after them, which are computed with them; their logits are wanted, too.
    """

    sequence: Sequence
    start: int
    rows: int
    wanted: bool
    writes: int = 0
    guesses: tuple[int, ...] = ()


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
        states: the slots of their recurrent states; None for a model without.
        windows: where layers with a window keep their pages; None for a model without.
    """

    def __init__(
        self, pool: PagePool, *, sequences: int, rows: int, ready: Callable[[MediaSpan], bool] = always,
        memory: MemoryPages | None = None, states: StateSlots | None = None, windows: WindowPlaces | None = None,
    ) -> None:  # fmt: skip
        self.pool, self.most, self.rows, self.ready = pool, sequences, rows, ready
        self.memory = MemoryPages(pool.count) if memory is None else memory
        self.states, self.windows = states, WindowPlaces(0, 0) if windows is None else windows
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
        for sequence in sorted(self.running, key=lambda s: (s is not passed, not s.is_ready)):
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
        if few and all(self._ends_at_missing(part) for part in plan):
            return []
        if self.states is not None:
            for part in plan:
                part.sequence.state.settled &= part.rows == 0
        return plan

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
        sequence.again = 0
        sequence.tell_progress()
        full = sequence.computed // PAGE
        if writes:
            self.memory.wrote(sequence.memory, writes)
        if full > before:
            for page, key in list(zip(sequence.pages, sequence.keys(full), strict=False))[before:]:
                self._keep(page, key)
        if self.states is not None and rows:
            self._keep_state(self.states, sequence)

    def _keep(self, page: int, key: bytes) -> None:
        """A full page can be found; one before it that windows have lost cannot any more."""
        before = self.pool.find([key])
        if not self.windows.has(before, len(before) * PAGE):
            self.pool.forget(before)
        self.pool.keep(page, key)

    def checked(self, part: Slice, right: int) -> None:
        """The rows of a part are in the cache, and so many of its guesses were right: these are known rows by now.

        What later rows left in its pages nobody sees, and it is written over. A recurrent state cannot be cut back: it
        stays as it was before the step, and the rows that are right are computed again with the next ones.
        """
        sequence, rows = part.sequence, part.rows + right
        if self.states is not None:
            self.states.checked(sequence.state, are_right=right == len(part.guesses))
            if right < len(part.guesses):
                sequence.again = rows
                return
        self.computed(sequence, rows)

    def _keep_state(self, states: StateSlots, sequence: Sequence) -> None:
        """A step of it ended: keep its state where it shall be, or after the last full page of its answer."""
        state, computed = sequence.state, sequence.computed
        states.computed(state)
        if computed in state.places:
            states.keep(state, sequence.key(computed))
        elif sequence.generated and computed % PAGE == 0:
            states.keep(state, sequence.key(computed), moving=True)
        state.places = [place for place in state.places if place > computed]

    def _ends_at_missing(self, part: Slice) -> bool:
        """Whether it goes up to media that is not there."""
        end = part.start + part.rows
        return any(p.start == end and not self._is_there(p) for p in part.sequence.lacking)

    def _end(self, sequence: Sequence, budget: int, room: int) -> int:
        """The row up to which it may be computed.

        That is `budget` rows, none after the next place where its state is kept, nothing of media that is not there,
        and media whose rows see each other to its end or not at all.
        """
        start = sequence.computed
        end = min(sequence.known, start + budget, *sequence.state.places[:1])
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
            start = self._start(sequence)
            if start is None:
                continue
            promised = sum(max(0, s.all_pages - len(s.pages)) for s in self.running)
            need = sequence.all_pages - len(start.pages) + promised
            if len(self.running) >= self.most or need > self.pool.free - self.pool.count_idle(start.pages):
                return
            if sum(self.memory.need(s.memory) for s in (sequence, *self.running)) > self.memory.pool.free:
                return
            if self.states is not None and not self.states.pool.free:
                return
            self._begin(sequence, start)
            if not sequence.was_started:
                sequence.start()
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _start(self, sequence: Sequence) -> Start | None:
        """Where it may begin: after full pages, in the last page of a sequence that ended and began with the same rows.

        Where there are windows or states, only where these are kept. None: it waits for a running sequence.
        """
        last = sequence.known - 1  # not all rows: the last one's logits are wanted
        keys = sequence.keys(last // PAGE)
        pages = self.pool.find(keys)
        found, rows = len(pages), len(pages) * PAGE
        states = self.states
        if states is None and found < len(keys) and self._is_coming(keys[found], found):
            return None
        before, names = sequence.before(found), sequence.names(rows, min(rows + PAGE, last))

        def fits(page: int, count: int) -> bool:
            is_kept = states is None or states.has(sequence.key(rows + count))
            return is_kept and self.windows.has([*pages, page], rows + count)

        tail = self.pool.find_tail(before, names, fits)
        if not tail[1]:
            del pages[deepest(self.windows, states, pages, keys) :]
        start = Start(pages, *tail, found)
        return None if states is not None and self._state_is_coming(keys, start.computed) else start

    def _begin(self, sequence: Sequence, start: Start) -> None:
        """Take what is there of its beginning."""
        for page in start.pages:
            self.pool.share(page)
        sequence.pages, sequence.computed = start.pages[:], start.computed
        if start.rows:
            self.pool.adopt(start.tail)
            sequence.pages.append(start.tail)
        self.windows.hold(sequence.near, sequence.pages, start.computed, start.computed)
        if self.states is None:
            return
        key = sequence.key(start.computed) if start.computed else None
        kept = self.states.deepest(sequence.keys(len(start.pages))) * PAGE
        self.states.begin(sequence.state, key, alone=start.rows > 0)
        media = sequence.rows.media_from(start.computed)
        sequence.state.places = places(sequence.known, start.computed, kept, start.found * PAGE, media)

    def _state_is_coming(self, keys: list[bytes], computed: int) -> bool:
        """Whether a running sequence will keep a state after more of the rows with these keys."""
        return any(
            computed < place <= len(keys) * PAGE and s.keys(place // PAGE)[-1] == keys[place // PAGE - 1]
            for s in self.running
            for place in s.state.places
        )

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
        while not self.windows.hold(sequence.near, sequence.pages, sequence.computed, rows):
            if not self._make_room(sequence, plan, self.running):
                return False
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
        sequence.computed = sequence.again = 0
        self.running.remove(sequence)
        self.waiting.insert(0, sequence)

    def _release(self, sequence: Sequence) -> None:
        full, rest = divmod(sequence.computed, PAGE)
        if rest and sequence.pages:
            self.pool.keep_tail(
                sequence.pages[full], sequence.before(full), sequence.names(full * PAGE, sequence.computed)
            )
        if self.states is not None:
            self.states.release(sequence.state, sequence.key(sequence.computed) if sequence.computed else None)
        self.pool.give_back(sequence.pages)
        self.windows.release(sequence.near)
        self.memory.release(sequence.memory)
        sequence.pages = []
