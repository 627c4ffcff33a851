"""What one forward pass is told: rows of many sequences, and where their keys and values lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from opsin.ops import Array, Pages, Reads, Rows
from opsin.ops.recurrence import Runs, States

MEMORY = "memory"  # the KV group that holds no rows of sequences, but what their rows remember of media
Tap = Callable[[str, Array], Array]


def untapped(name: str, value: Array) -> Array:
    """The tap of an ordinary run: every value passes as it is."""
    return value


@dataclass(frozen=True)
class GroupShape:
    """A KV group of a decoder: layers that share one page list.

    `window` w above nothing: a row sees its own, w - 1 before, and none further back. Nothing: it sees all before.
    What comes after a row is seen only within an atomic span, and in no `causal` group. So the row at place r of its
    sequence sees from max(0, r - w + 1) (0 without a window) to r + 1, or to the end of its atomic span; a window that
    is shorter than the span cuts its beginning off for its last rows, as transformers does it.

    In a `bidirectional` group it sees all rows of its sequence, or those less than `window` away on both sides: a text
    is computed in one step, and is never gone on with.
    """

    layers: int
    heads: int
    width: int
    window: int = 0
    causal: bool = False
    bidirectional: bool = False


@dataclass(frozen=True)
class StateShape:
    """A state of a decoder's recurrent layers: all that rows leave behind, whose size does not grow with them.

    A sequence has one block of float32 [layers, *shape] of it, which each of its rows changes in turn: that of the
    gated delta rule, or the last rows that a causal convolution looks back to.
    """

    layers: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of one sequence."""
        return 4 * self.layers * prod(self.shape)


@dataclass(frozen=True, eq=False)
class Group:
    """A KV group in one step.

    Attributes:
        pages: its memory.
        reads: what each row sees of it.
        slots: where each row's keys and values go; None for a group that is only read (memory).
    """

    pages: Pages
    reads: Reads
    slots: Array | None = None

    def of_rows(self, rows: Array) -> Group:
        """The same of some rows of the batch, int32 [fewer], in its order: to be read, not written."""
        r, take = self.reads, rows.ops.take
        sequence, first, last = (take(of_row, rows) for of_row in (r.sequence, r.first, r.last))
        return Group(self.pages, Reads(r.tables, sequence, first, last))


@dataclass(frozen=True, eq=False, kw_only=True)
class Memory(Group):
    """The group MEMORY in one step: `reads` are those of the rows that remember something, and of no others.

    Attributes:
        rows: int32 [remembering], which rows of the batch these are.
        places: int32 [rows], where each row of the batch stands among them; negative where it remembers nothing.
    """

    rows: Array
    places: Array


@dataclass(frozen=True, eq=False)
class Shift:
    """Where the row before each row of a batch is, of the same sequence.

    Attributes:
        rows: int32 [rows], its number in the batch.
        carried: float32 [sequences, width], the states of rows before the first ones in the batch.
        places: int32 [rows], which of these is the row's; negative where the row before it is in the batch.
    """

    rows: Array
    carried: Array
    places: Array

    def __call__(self, states: Array) -> Array:
        """States [rows, width] of a batch -> those of the rows before."""
        return states.ops.put(states.ops.take(states, self.rows), self.carried, self.places)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of many sequences, one after another; a sequence's rows stand together.

    Attributes:
        ids: int32 [rows].
        positions: int32 [rows], what RoPE sees.
        groups: KV groups by name but MEMORY; "self" is the sequence's own. They differ in what a row sees
            (`Reads.first`, `last`), not in pages and slots.
        outputs: int32 [outputs], the rows whose logits are wanted.
        axes: int32 [rows, axes], time, row and column of each row, for decoders with more than one axis. None: all
            of them are `positions`.
        segments: int32 [rows], which text of a pair each row is of, for models that tell (`Decoder.segments`).
        media: rows of embeddings that stand in for those of ids.
        memory: what rows remember of media; None where nobody can remember any.
        context: positions that a sequence may have here; None: those that the decoder was trained for.
        states: recurrent states by name.
        runs: whose rows are whose, and where their states come from and go; None where there are no states.
        shift: the rows before all rows; None where nothing guesses from their states.
        last: in the last layer, where rows that no output is wanted of give keys and values, and go no further.
        tap: sees, and may replace, values by name ("blk.3.out").
    """

    ids: Array
    positions: Array
    groups: Mapping[str, Group]
    outputs: Array
    axes: Array | None = None
    segments: Array | None = None
    media: Rows | None = None
    memory: Memory | None = None
    context: int | None = None
    states: Mapping[str, States] = field(default_factory=dict)
    runs: Runs | None = None
    shift: Shift | None = None
    last: bool = False
    tap: Tap = untapped
    wants_weights: Callable[[str], bool] = lambda name: False

    def overlay(self, x: Array) -> Array:
        """Embeddings of ids [rows, width], with those of media in their places."""
        return x if self.media is None else x.ops.overlay(x, self.media)

    def in_layer(self, layer: int, layers: int) -> Batch:
        """The same in one of so many layers, of which the last one ends rows that no output is wanted of."""
        return replace(self, last=layer == layers - 1)

    def going_on(self, x: Array) -> Array:
        """Of values of all rows [rows, ...] those of rows that go on behind a layer's attention."""
        return x.ops.take(x, self.outputs) if self.last else x

    def deepen(self, x: Array, part: int) -> Array:
        """States [rows, width], which are used up, with part `part` of the embeddings of media added to their rows.

        Part 0 of an embedding is what `overlay` takes; further parts, each as wide, follow it (DeepStack, Meng et al.
        2024, arXiv 2406.04334).
        """
        return x if self.media is None else x.ops.add_rows(x, self.media, part * x.width)
