"""Media that rows remember beside their sequence (cross-attention): its pages, and the KV group that reads them.

Keys and values of media are written once, beside the program of a step, into pages of a pool of their own, which is
shared by what they hold. Layers that read them compute the rows that remember something, and no others: these stand
together, in their order in the batch.

Thread: the loader's makes it, afterwards only the engine's touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from opsin.engine.media_store import MediaStore
from opsin.engine.pages import PagePool
from opsin.engine.rows import Placed, PromptRows
from opsin.errors import RequestError
from opsin.models import Decoder, Remembers
from opsin.nn.batch import Memory
from opsin.ops import PAGE, Array, Count, Ops, Pages, Reads
from opsin.ops.device import Device, Recording
from opsin.spans import MediaSpan

Inputs = Mapping[str, npt.NDArray[np.generic]]


class MemoryInputs:
    """What a step's program is told of it.

    Args:
        rows: those of a step.
        tables: sequences of a step, and pages that one can remember.
    """

    def __init__(self, ops: Ops, tape: Recording, pages: Pages, rows: Count, tables: tuple[int, int]) -> None:
        remembering = tape.count("remembering", rows.most)

        def each(name: str) -> Array:
            return tape.input(ops, f"memory_{name}", (remembering,), "i32")

        self.group = Memory(
            pages=pages,
            reads=Reads(tape.input(ops, "memory_tables", tables, "i32"), each("sequence"), each("first"), each("last")),
            rows=each("rows"),
            places=tape.input(ops, "memory_places", (rows,), "i32"),
        )
        self.count = 0  # rows that remember something

    def clear(self, inputs: Inputs) -> None:
        """Nobody remembers anything."""
        inputs["memory_places"][:] = -1
        self.count = 0

    def fill(
        self, inputs: Inputs, row: int, number: int, rows: PromptRows, places: range, pages: list[int]
    ) -> None:  # fmt: skip
        """Rows of sequence `number` that stand at `row` of the batch and after; it holds `pages` for what it remembers.

        Sequences come in the order of the batch.
        """
        first, last = rows.remembered(np.arange(places.start, places.stop, dtype=np.int32))
        which = np.flatnonzero(first < last).astype(np.int32)
        here = slice(self.count, self.count + len(which))
        inputs["memory_tables"][number, : len(pages)] = pages
        inputs["memory_sequence"][here] = number
        inputs["memory_first"][here], inputs["memory_last"][here] = first[which], last[which]
        inputs["memory_rows"][here] = row + which
        inputs["memory_places"][row + which] = np.arange(here.start, here.stop, dtype=np.int32)
        self.count = here.stop


def write_memory(
    device: Device, decoder: Decoder, store: MediaStore, into: Pages, unfilled: Iterable[tuple[Placed, list[int]]],
    rows: range,
) -> None:  # fmt: skip
    """Keys and values of some rows of media whose pages nobody wrote yet; they are counted from the first of all."""
    ops, start = device.eager(), 0
    for placed, pages in unfilled:
        begin = start
        for span in placed.whole:
            first, last = max(rows.start, start), min(rows.stop, start + span.memory)
            if first < last:
                memory = _embeddings(ops, store, span, range(first - start, last - start))
                places = np.arange(first - begin, last - begin, dtype=np.int32)
                slots = np.asarray(pages, np.int32)[places // PAGE] * PAGE + places % PAGE
                cast(Remembers, decoder).remember(memory, into, ops.constant(slots.astype(np.int32)))
            start += span.memory


def _embeddings(ops: Ops, store: MediaStore, span: MediaSpan, which: range) -> Array:
    found = store.get(span.digest)
    rows = ops.constant(np.arange(found.row + which.start, found.row + which.stop, dtype=np.int32))
    return ops.take(Array(ops, found.array.data, found.array.shape, found.array.dtype), rows)


@dataclass
class Remembered:
    """What a sequence remembers, and the pages that it holds: those of the first `held` of its media.

    `unfilled` are media and their pages that nobody wrote yet, but for the first `written` rows of them all.
    """

    media: Sequence[Placed]
    pages: list[int] = field(default_factory=list)
    held: int = 0
    unfilled: list[tuple[Placed, list[int]]] = field(default_factory=list)
    written: int = 0

    @property
    def left(self) -> int:
        """Rows to be written."""
        return sum(placed.memory for placed, _ in self.unfilled) - self.written

    @property
    def unmet(self) -> Sequence[Placed]:
        """Media of which it holds no pages."""
        return self.media[self.held :]

    @property
    def lacking(self) -> list[Placed]:
        """Media that must be held and written before rows that remember them are computed."""
        return [*self.unmet, *(placed for placed, _ in self.unfilled)]


class MemoryPages:
    """Which pages are taken by what sequences remember: a pool of their own, shared by what they hold.

    Numbers only, as in `PagePool`.
    """

    def __init__(self, count: int) -> None:
        self.pool = PagePool(count)

    def check(self, rows: PromptRows) -> None:
        """Raises RequestError for a prompt that remembers more than there is room for."""
        if rows.memory_pages > self.pool.count:
            raise _too_much(rows, "there is room for", self.pool.count)

    def borrow(self, rows: PromptRows) -> list[int]:
        """Pages for all that a prompt remembers, for a job on the engine's thread; `pool.give_back` takes them."""
        pages = self.pool.take(rows.memory_pages)
        if pages is None:
            raise _too_much(rows, "there is now room for", self.pool.free)
        return pages

    def has(self, placed: Placed) -> bool:
        """Whether somebody wrote it, and it is still there."""
        return bool(placed.keys) and len(self.pool.find(placed.keys)) == len(placed.keys)

    def need(self, memory: Remembered) -> int:
        """Free pages that a sequence will take until it holds all that it remembers."""
        return sum(
            self.pool.count_idle(self.pool.find(placed.keys)) if self.has(placed) else placed.pages
            for placed in memory.unmet
        )

    def hold(self, memory: Remembered, placed: Placed) -> bool:
        """Give a sequence the pages of its next media, shared or new; False where there are not so many."""
        if self.has(placed):
            pages = self.pool.find(placed.keys)
            for page in pages:
                self.pool.share(page)
        else:
            taken = self.pool.take(placed.pages)
            if taken is None:
                return False
            pages = taken
            memory.unfilled.append((placed, pages))
        memory.pages += pages
        memory.held += 1
        return True

    def wrote(self, memory: Remembered, rows: int) -> None:
        """Some more rows are written; once all are, they can be found."""
        memory.written += rows
        if memory.left:
            return
        for placed, pages in memory.unfilled:
            for page, key in zip(pages, placed.keys, strict=True):
                self.pool.keep(page, key)
        memory.unfilled, memory.written = [], 0

    def release(self, memory: Remembered) -> None:
        """The sequence holds nothing any more."""
        self.pool.give_back(memory.pages)
        memory.pages, memory.unfilled, memory.held, memory.written = [], [], 0, 0


def _too_much(rows: PromptRows, room: str, pages: int) -> RequestError:
    return RequestError(
        f"the pictures of this prompt take {rows.memory_pages * PAGE} rows beside it, {room} {pages * PAGE}",
        hint="send fewer or smaller pictures",
    )
