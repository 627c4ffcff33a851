"""What every step's program is told, whatever it computes: rows of sequences, their places, and what they see.

Thread: the loader's makes it, afterwards only the engine's touches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opsin.arrays import Ints
from opsin.engine.media_store import MediaStore
from opsin.engine.memory import MemoryInputs, write_memory
from opsin.engine.rows import Placed, PromptRows
from opsin.engine.states import StateInputs
from opsin.engine.windows import Held, count_places, is_near, widest
from opsin.errors import RequestError
from opsin.models import Decoder
from opsin.nn.batch import MEMORY, Batch, Group
from opsin.ops import PAGE, Array, Ops, Pages, Reads
from opsin.ops.device import Device, Recorded, Recording
from opsin.ops.recurrence import States


@dataclass(frozen=True)
class Limits:
    """What one step and one cache can hold.

    Attributes:
        rows: rows of a step.
        outputs: rows of a step whose logits are wanted.
        sequences: sequences that run at once.
        context: rows of one sequence.
        pages: pages of the cache, shared by all sequences.
        memory: pages of what they remember beside it, where the decoder has a group for that.
        states: slots for what its recurrent layers have of a sequence, where it has any.
    """

    rows: int = 512
    outputs: int = 64
    sequences: int = 32
    context: int = 8192
    pages: int = 8192 // PAGE
    memory: int = 8192 // PAGE
    states: int = 8

    def __post_init__(self) -> None:
        fewest = min(self.rows, self.outputs, self.context, self.pages, self.memory, self.states)
        if not 0 < self.sequences <= min(self.rows, self.outputs) or fewest < 1:
            raise RequestError(f"{self}", hint="a step needs a row and an output for each sequence")


class StepProgram:
    """A recorded program over the cache of one decoder, and its inputs. Who extends it says what it computes.

    Args:
        media: where embeddings of media are found; None for a model of text, whose program has no place for them.
    """

    program: Recorded

    def __init__(self, device: Device, decoder: Decoder, limits: Limits, media: MediaStore | None) -> None:
        self.device, self.decoder, self.limits, self.media = device, decoder, limits, media
        self.vocabulary, self.ids = decoder.vocabulary, decoder.ids  # of logits, and those that rows may have
        shapes = [shape for name, shape in decoder.groups.items() if name != MEMORY]
        self._windows = sorted({shape.window for shape in shapes})
        self.window = widest(shapes)
        self._ahead = sorted({shape.window for shape in shapes if shape.bidirectional})
        self._memory: MemoryInputs | None = None
        self._states: StateInputs | None = None
        self._placed = False  # whether the step before had media

    @property
    def places(self) -> int:
        """Of pages in layers with a window."""
        limits = self.limits
        return count_places(self.window, sequences=limits.sequences, rows=limits.rows, pages=limits.pages)

    @property
    def bytes(self) -> int:
        """Memory of a step's values, without weights and cache."""
        return self.program.bytes

    def _batch(self, ops: Ops, tape: Recording, pages: Mapping[str, Pages], states: Mapping[str, States]) -> Batch:
        """The inputs of a step's program, over the cache: `pages` by KV group, recurrent states by name."""
        decoder, limits, shapes = self.decoder, self.limits, self.decoder.groups
        rows, outputs = tape.count("rows", limits.rows), tape.count("outputs", limits.outputs)

        def each_row(name: str) -> Array:
            return tape.input(ops, name, (rows,), "i32")

        tables = tape.input(ops, "tables", (limits.sequences, -(-limits.context // PAGE)), "i32")
        sequence, last, slots = each_row("sequence"), each_row("last"), each_row("slots")
        lying = {False: (tables, slots)}
        if self.window:
            near = tape.input(ops, "near", (limits.sequences, -(-limits.context // PAGE)), "i32")
            lying[True] = near, each_row("near.slots")
        own = [shape for name, shape in shapes.items() if name != MEMORY]
        ends = {causal: each_row("own") if causal else last for causal in {shape.causal for shape in own}}
        firsts = {window: each_row(_first(window)) for window in self._windows}
        ahead = {window: each_row(_end(window)) for window in self._ahead}
        # Groups that see alike share their reads, and so the plan of them that the device makes.
        sights = {(shape.window, shape.causal): is_near(shape) for shape in own}
        reads = {
            (w, causal): Reads(lying[near][0], sequence, firsts[w], ahead.get(w, ends[causal]))
            for (w, causal), near in sorted(sights.items())
        }
        if MEMORY in shapes:
            size = (limits.sequences, limits.memory)
            self._memory = MemoryInputs(ops, tape, pages[MEMORY], rows, size)
        if states:
            self._states = StateInputs(ops, tape, sequences=limits.sequences)
        return Batch(
            ids=each_row("ids"),
            positions=each_row("positions"),
            groups={
                name: Group(pages[name], reads[s.window, s.causal], lying[is_near(s)][1])
                for name, s in shapes.items()
                if name != MEMORY
            },
            outputs=tape.input(ops, "outputs", (outputs,), "i32"),
            axes=tape.input(ops, "axes", (rows, decoder.axes), "i32") if decoder.axes > 1 else None,
            segments=each_row("segments") if decoder.segments else None,
            media=tape.rows(ops, "media", limits.rows) if self.media is not None else None,
            memory=self._memory.group if self._memory is not None else None,
            context=limits.context,
            states=states,
            runs=self._states.runs if self._states is not None else None,
        )

    def _fill(
        self, row: int, number: int, rows: PromptRows, ids: Sequence[int], start: int, pages: list[int], held: Held
    ) -> None:  # fmt: skip
        """Rows of one sequence into the program's inputs; `held` is where its pages lie in layers with a window."""
        if self.window:
            self._fill_near(row, number, np.arange(start, start + len(ids), dtype=np.int32), held)
        if len(ids) == 1 and not self._ahead and (start >= rows.count or not rows.media):
            self._fill_one(row, number, rows, ids[0], start, pages)
            return
        inputs, end = self.program.inputs, row + len(ids)
        places = np.arange(start, start + len(ids), dtype=np.int32)
        table = inputs["tables"][number]
        table[: len(pages)] = pages
        inputs["ids"][row:end] = ids
        inputs["sequence"][row:end] = number
        inputs["slots"][row:end] = table[places // PAGE] * PAGE + places % PAGE
        inputs["last"][row:end] = rows.last(start, places)
        if "own" in inputs:
            inputs["own"][row:end] = places + 1
        for window in self._windows:
            inputs[_first(window)][row:end] = rows.first(places, window) if window else 0
        for window in self._ahead:
            inputs[_end(window)][row:end] = rows.end(places, window)
        positions = rows.positions(start, places)  # [rows] or [rows, axes]
        inputs["positions"][row:end] = positions if positions.ndim == 1 else positions[:, 0]
        if "axes" in inputs:
            inputs["axes"][row:end] = positions if positions.ndim > 1 else positions[:, None]
        if "segments" in inputs:
            told = rows.segments
            most = np.int32(self.decoder.segments - 1)
            inputs["segments"][row:end] = 0 if told is None else np.minimum(told[start : start + len(ids)], most)
        if rows.media:
            self._place_media(row, rows, start, start + len(ids))

    def _fill_one(self, row: int, number: int, rows: PromptRows, id: int, place: int, pages: list[int]) -> None:
        """The same for one row of text. Most rows come so, and numbers are written faster than arrays."""
        inputs, position = self.program.inputs, rows.position(place)
        inputs["tables"][number, : len(pages)] = pages
        inputs["ids"][row], inputs["sequence"][row] = id, number
        inputs["slots"][row] = pages[place // PAGE] * PAGE + place % PAGE
        inputs["last"][row], inputs["positions"][row] = place + 1, position
        if "own" in inputs:
            inputs["own"][row] = place + 1
        for window in self._windows:
            inputs[_first(window)][row] = max(0, place - window + 1) if window else 0
        if "axes" in inputs:
            inputs["axes"][row] = position

    def _fill_near(self, row: int, number: int, places: Ints, held: Held) -> None:
        """The same of layers with a window; what they no longer hold nobody reads."""
        table = self.program.inputs["near"][number]
        table[held.first : held.first + len(held.places)] = held.places
        slots = table[places // PAGE] * PAGE + places % PAGE
        self.program.inputs["near.slots"][row : row + len(places)] = slots

    def _fill_memory(self, row: int, number: int, rows: PromptRows, places: range, pages: list[int]) -> None:
        """What rows of one sequence remember, if anything."""
        if self._memory is not None and rows.memory:
            self._memory.fill(self.program.inputs, row, number, rows, places, pages)

    def _fill_states(self, rows: range, reads: int, writes: int) -> None:
        """Where the states of one sequence come from and go, if it has any."""
        if self._states is not None:
            self._states.fill(self.program.inputs, rows, reads, writes)

    def _write_memory(
        self, unfilled: Sequence[tuple[Placed, list[int]]], first: int = 0, rows: int | None = None
    ) -> None:  # fmt: skip
        """Rows from `first` on of what nobody wrote yet (None: all) are computed now, beside the program."""
        count = sum(placed.memory for placed, _ in unfilled) if rows is None else rows
        if count and self.media is not None:
            assert self._memory is not None
            into = self._memory.group.pages
            write_memory(self.device, self.decoder, self.media, into, unfilled, range(first, first + count))

    def _run(self, **counts: int) -> None:
        remembering = {} if self._memory is None else {"remembering": self._memory.count}
        self.program.run(**counts, **remembering)

    def _place_media(self, row: int, rows: PromptRows, start: int, end: int) -> None:
        """Let embeddings stand in the rows of media from `start` to `end`; `row` is where `start` is in the batch."""
        for placed in rows.media_from(start):
            if placed.start >= end:
                return
            if not placed.span.rows:
                continue
            assert self.media is not None
            if placed.span.digest not in self.media:
                raise RequestError("the pictures of this prompt are not kept", hint="give fewer, or smaller ones")
            found = self.media.get(placed.span.digest)
            first, last = max(start, placed.start), min(end, placed.end)
            shown = found.row + placed.span.first + first - placed.start
            self.program.rows["media"].set(row + first - start, found.array, shown, last - first)
            self._placed = True

    def _clear(self) -> None:
        """No sequences, no media, and nobody remembers any."""
        if self._placed:
            self.program.rows["media"].clear()
            self._placed = False
        if self._memory is not None:
            self._memory.clear(self.program.inputs)
        if self._states is not None:
            self._states.clear(self.program.inputs)


def _first(window: int) -> str:
    """The input that says what a row sees first through a window."""
    return f"first.{window}" if window else "first"


def _end(window: int) -> str:
    """The input that says what a row no longer sees ahead, where it sees ahead."""
    return f"end.{window}" if window else "end"
