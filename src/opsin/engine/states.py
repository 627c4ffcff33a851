"""Recurrent states: which slots of them are taken, by whom, and after which rows of a prompt one is kept.

A slot holds what all recurrent layers have of one sequence. A state cannot be cut back to fewer rows, as pages can:
so one is kept here and there, under the chained key of the rows that it stands after, and a sequence begins where both
its pages and a state are found. Who goes on from a kept state reads it there and writes into a slot of its own.

Thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opsin.engine.memory import Inputs
from opsin.engine.pages import PagePool
from opsin.engine.rows import Placed
from opsin.errors import ModelError, RequestError
from opsin.nn.batch import StateShape
from opsin.ops import PAGE, Ops
from opsin.ops.device import Recording
from opsin.ops.recurrence import Runs

EVERY = 8 * PAGE  # rows of a prompt after which a state is kept: most steps of a long prompt end there anyway
APART = 2 * PAGE  # rows that a state must save: one ends a step early, which costs as much as some 16 rows of a prompt
SHARE = 8  # kept states of a long prompt, about: it shall not drive out everybody else's
USUAL = 1 << 30  # bytes of states where nobody says; what no sequence needed yet is not touched
LARGEST = 1 << 31  # bytes of one sequence's states; the largest published ones have a tenth of it
_LAST = 2  # kept states that no guess drives out
REST = 16  # rows at a prompt's end that the next turn may write otherwise: how a template begins an answer


@dataclass
class Carried:
    """What a sequence has of states.

    Attributes:
        own: the slot that it alone writes; -1 while it waits.
        begin: the slot that its next row reads: its own, a kept one that it holds, or -1 for zeros.
        places: counts of its rows, ascending, after which its state is kept. A step ends there.
        settled: whether its own slot is as after a step, and not perhaps in the midst of one that came to no end.
        before: the key under which its own state was kept last, after rows of its answer.
        other: a slot beside its own that a step with guesses writes; -1 without. Its own has the state before.
    """

    own: int = -1
    begin: int = -1
    places: list[int] = field(default_factory=list)
    settled: bool = True
    before: bytes | None = None
    other: int = -1

    @property
    def written(self) -> int:
        """The slot that its next step writes."""
        return self.own if self.other < 0 else self.other


@dataclass(frozen=True)
class Start:
    """Where a sequence begins: after full pages, and the first `rows` rows of the page `tail`.

    `found` are full pages that were found, of which some may be of no use without a state.
    """

    pages: list[int]
    tail: int
    rows: int
    found: int

    @property
    def computed(self) -> int:
        return len(self.pages) * PAGE + self.rows


class StateSlots:
    """Slots by number: in use, kept under a key or free. Numbers only, as in `PagePool`."""

    def __init__(self, count: int) -> None:
        self.pool = PagePool(count)

    def has(self, key: bytes) -> bool:
        return bool(self.pool.find([key]))

    def deepest(self, keys: Sequence[bytes]) -> int:
        """Of blocks with these keys, the number after which a state is kept; 0 where there is none."""
        return next((number for number in range(len(keys), 0, -1) if self.has(keys[number - 1])), 0)

    def begin(self, carried: Carried, key: bytes | None, *, alone: bool) -> None:
        """A sequence begins after the rows with this key (None: with nothing). At least one slot must be free.

        `alone`: nobody else can begin there, so it takes the state over.
        """
        found = -1 if key is None else self.pool.find([key])[0]
        idle = found >= 0 and self.pool.count_idle([found]) > 0
        if idle and (alone or self.pool.free == 1):
            self.pool.adopt(found)
            carried.own = carried.begin = found
            return
        if found >= 0:
            self.pool.share(found)
        carried.begin, carried.own = found, self._take()

    def computed(self, carried: Carried) -> None:
        """A step of a sequence ended: its own slot has its state."""
        if carried.begin not in (-1, carried.own):
            self.pool.give_back([carried.begin])
        carried.begin, carried.settled = carried.own, True

    def spare(self, carried: Carried) -> bool:
        """Let its next step, which has guesses, write beside its state; False where no slot is free for that."""
        if carried.other < 0 and (self.pool.unused or self.pool.free > _LAST):
            carried.other = self._take()
        return carried.other >= 0

    def checked(self, carried: Carried, *, are_right: bool) -> None:
        """A step with guesses ended: what it wrote is its state where all of them are right, else nobody's."""
        if are_right:
            if carried.begin == carried.own:
                carried.begin = carried.other
            carried.own, carried.other = carried.other, carried.own
        self._give_back_other(carried)
        carried.settled = True

    def _give_back_other(self, carried: Carried) -> None:
        if carried.other >= 0:
            self.pool.give_back([carried.other])
            carried.other = -1

    def keep(self, carried: Carried, key: bytes, *, moving: bool = False) -> None:
        """Keep the state that a sequence has, if there is a slot in which it can go on.

        `moving`: in place of the one that it kept so before.
        """
        if self.has(key):
            return
        old = self.pool.find([carried.before]) if moving and carried.before is not None else []
        if old and self.pool.count_idle(old):
            self.pool.adopt(old[0])
            other = old[0]
        elif self.pool.free:
            other = self._take()
        else:
            return
        self.pool.keep(carried.own, key)
        carried.own = other
        if moving:
            carried.before = key

    def release(self, carried: Carried, key: bytes | None) -> None:
        """The sequence leaves; what it has is kept under this key, of all its computed rows."""
        if carried.own < 0:
            return
        self._give_back_other(carried)
        if carried.begin not in (-1, carried.own):
            self.pool.give_back([carried.begin])
        elif carried.begin == carried.own and carried.settled and key is not None:
            self.pool.keep(carried.own, key)
        self.pool.give_back([carried.own])
        carried.own = carried.begin = -1
        carried.places, carried.before, carried.settled = [], None, True

    def borrow(self) -> list[int]:
        """Two slots for a job on the engine's thread; `pool.give_back` takes them."""
        slots = self.pool.take(2)
        if slots is None:
            raise RequestError("there is no room for another recurrent state now", hint="load with more for states")
        return slots

    def _take(self) -> int:
        (slot,) = self.pool.take(1) or (-1,)
        assert slot >= 0, "no state is free"
        return slot


def places(rows: int, start: int, kept: int, found: int, media: Iterable[Placed]) -> list[int]:
    """After how many of its `rows` a sequence's state is kept, all of them full pages.

    That is before the end of what it knows, where its pages were `found` but no state (others begin so too), within
    each piece of media, and every now and then; nothing nearer to another one than it is worth.

    Args:
        start: rows at its beginning that are computed.
        kept: rows after which the last state that it found is kept for others, too.
    """
    last = (rows - REST) // PAGE * PAGE
    thin = max(APART, rows // SHARE)
    wanted = [(last, APART), (found, APART)]
    wanted += [(placed.end // PAGE * PAGE, thin) for placed in media]
    wanted += [(place, thin) for place in range(EVERY, last, EVERY)]
    chosen: list[int] = []
    for place, apart in wanted:
        if start < place <= last and all(abs(place - other) >= apart for other in (kept, *chosen)):
            chosen.append(place)
    return sorted(chosen)


def count_slots(shapes: Mapping[str, StateShape], size: int | None, *, sequences: int, pages: int) -> int:
    """How many slots `size` bytes hold (None: the usual); at least two, and no more than can be of use.

    So many may be of use as sequences run, and one for each page that is kept. Raises ModelError for a state that no
    model has, RequestError where not even two have room.
    """
    one = sum(shape.bytes for shape in shapes.values())
    if not one:
        return 1
    if one > LARGEST:
        raise ModelError(
            f"the recurrent states of one sequence take {one} bytes, more than {LARGEST}", hint="the file is damaged"
        )
    if size is not None and size < 2 * one:
        raise RequestError(f"{size} bytes for recurrent states", hint=f"this model needs {2 * one} for one sequence")
    return max(2, min((size or USUAL) // one, sequences + pages))


class StateInputs:
    """What a step's program is told of states."""

    def __init__(self, ops: Ops, tape: Recording, *, sequences: int) -> None:
        sizes = {"starts": sequences + 1, "reads": sequences, "writes": sequences}
        self.runs = Runs(*(tape.input(ops, f"states_{name}", (size,), "i32") for name, size in sizes.items()))
        self._count = 0  # sequences of a step

    def clear(self, inputs: Inputs) -> None:
        """No sequence is there."""
        inputs["states_starts"][:] = 0
        self._count = 0

    def fill(self, inputs: Inputs, rows: range, reads: int, writes: int) -> None:
        """These rows of the batch are the next sequence's, which goes on from one slot into another or the same."""
        inputs["states_starts"][self._count] = rows.start
        inputs["states_starts"][self._count + 1 :] = rows.stop
        inputs["states_reads"][self._count], inputs["states_writes"][self._count] = reads, writes
        self._count += 1
