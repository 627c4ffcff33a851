"""Batches made by hand, run eagerly: several sequences, in any chunks, with media, windows and positions of axes.

It follows the rules in `opsin.nn.batch` with plain loops, and shares nothing with the engine's runner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from figures import note
from numpy.typing import NDArray

from opsin.gguf import File
from opsin.models import Decoder, load_decoder
from opsin.nn.batch import MEMORY, Batch, Group, Tap, untapped
from opsin.nn.module import FileReader
from opsin.ops import PAGE, Array, Reads
from opsin.ops.recurrence import Runs

Floats = NDArray[np.float32]


def open_decoder(ops, path) -> Decoder:
    """The decoder of a file. Every tensor must have been asked for."""
    with File.open(path) as file:
        reader = FileReader(file, ops)
        decoder = load_decoder(file, reader)
        assert reader.unread() == (), "tensors unread"
    return decoder


@dataclass
class Sequence:
    """Rows of text and media.

    Attributes:
        ids: of all rows; those of media do not matter.
        spans: first and last row of each medium, and whether it is atomic.
        media: embeddings of the rows of `spans`, one after another, [rows, width].
        axes: [rows, 3] where the decoder has three.
    """

    ids: list[int]
    spans: list[tuple[int, int, bool]] = field(default_factory=list)
    media: Floats | None = None
    axes: NDArray[np.int32] | None = None

    def first(self, row: int, window: int) -> int:
        return max(0, row - window + 1) if window else 0

    def last(self, row: int) -> int:
        return max([row + 1, *(b for a, b, atomic in self.spans if atomic and a <= row < b)])

    def medium(self, row: int) -> int | None:
        """The row of `media` that stands at `row`."""
        before = 0
        for a, b, _ in self.spans:
            if a <= row < b:
                return before + row - a
            before += b - a
        return None


class Bench:
    """A decoder with a cache for some sequences, on pages that lie scattered."""

    def __init__(self, ops, decoder: Decoder, sequences: list[Sequence]) -> None:
        self.ops, self.decoder, self.sequences = ops, decoder, sequences
        most = max(-(-len(s.ids) // PAGE) for s in sequences)
        count = most * len(sequences) + 1
        numbers = np.random.default_rng(0).permutation(count)[: count - 1]
        self.tables = numbers.reshape(len(sequences), most).astype(np.int32)
        self.pages = {
            name: ops.pages(layers=g.layers, heads=g.heads, width=g.width, count=count, kind="f32")
            for name, g in decoder.groups.items()
            if name != MEMORY  # nobody remembers anything
        }
        self.states = {
            name: ops.states(layers=s.layers, shape=s.shape, count=2 * len(sequences))
            for name, s in decoder.states.items()
        }
        self.slots = [-1] * len(sequences)  # of the states of each sequence; it writes into its two by turns
        self.embeddings = [None if s.media is None else ops.constant(s.media) for s in sequences]

    def step(self, parts: list[tuple[int, int, int]], outputs: list[int] | None = None, tap: Tap = untapped) -> Floats:
        """Logits of rows first to last of some sequences: (sequence, first, last). Of all, or of `outputs`."""
        rows = [(n, row) for n, first, last in parts for row in range(first, last)]
        number, place = (np.array(values, np.int32) for values in zip(*rows, strict=True))
        ids = [self.sequences[n].ids[row] for n, row in rows]
        slots = self.tables[number, place // PAGE] * PAGE + place % PAGE
        groups = {
            name: Group(self.pages[name], self._reads(rows, shape.window, shape.causal), self._array(slots))
            for name, shape in self.decoder.groups.items()
            if name != MEMORY
        }
        axes = None
        if self.decoder.axes > 1:
            known = [self.sequences[n].axes for n, _ in rows]
            axes = self._array([[row] * 3 if a is None else a[row] for a, (_, row) in zip(known, rows, strict=True)])
        batch = Batch(
            ids=self._array(ids), positions=self._array(place), groups=groups,
            outputs=self._array(range(len(rows)) if outputs is None else outputs), axes=axes,
            media=self._media(rows), states=self.states, runs=self._runs(parts) if self.states else None, tap=tap,
        )  # fmt: skip
        return self.decoder.forward(batch).numpy()

    def _runs(self, parts: list[tuple[int, int, int]]) -> Runs:
        reads = [self.slots[n] for n, _, _ in parts]
        for n, _, _ in parts:
            self.slots[n] = 2 * n + (self.slots[n] + 1) % 2
        starts = np.cumsum([0, *(last - first for _, first, last in parts)])
        return Runs(*(self._array(a) for a in (starts, reads, [self.slots[n] for n, _, _ in parts])))

    def _reads(self, rows: list[tuple[int, int]], window: int, causal: bool) -> Reads:
        first = [self.sequences[n].first(row, window) for n, row in rows]
        last = [row + 1 if causal else self.sequences[n].last(row) for n, row in rows]
        return Reads(*(self._array(a) for a in (self.tables, [n for n, _ in rows], first, last)))

    def _media(self, rows: list[tuple[int, int]]):
        if not any(s.spans for s in self.sequences):
            return None
        table = self.ops.rows(len(rows))
        for i, (n, row) in enumerate(rows):
            medium = self.sequences[n].medium(row)
            if medium is not None:
                table.set(i, self.embeddings[n], medium)
        return table

    def _array(self, values) -> Array:
        return self.ops.constant(np.asarray(values, np.int32))


def chunks_of(rows: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(rows, start + size)) for start in range(0, rows, size)]


def score(ops, decoder: Decoder, sequence: Sequence, chunks: list[tuple[int, int]] | None = None) -> Floats:
    """Logits of all rows of one sequence, computed in these chunks."""
    bench = Bench(ops, decoder, [sequence])
    return np.concatenate([bench.step([(0, *c)]) for c in chunks or [(0, len(sequence.ids))]])


def distance(ours: Floats, theirs: Floats) -> float:
    """As a share of the largest."""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    return note(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
