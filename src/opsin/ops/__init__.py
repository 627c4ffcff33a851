"""Arithmetic: values (`Array`), and the operations that every device offers (`Ops`).

Nothing else in the house knows hardware. `reference` is the definition of each operation in plain NumPy,
`cpu` records them into programs of compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops.alibi import Alibi
from opsin.ops.raw import Raw as Raw
from opsin.ops.recurrence import RecurrentOps
from opsin.ops.routes import ExpertOps

Pairing = Literal["neighbours", "halves", "quarters"]
Activation = Literal["silu", "gelu", "gelu_erf", "gelu_quick", "relu", "sigmoid"]
Glu = Activation | Literal["swiglu_oai"]  # that one is silu of slope 1.702, both sides clamped to 7, up + 1
PageType = Literal["f32", "f16", "q8_0", "q4_0"]

PAGE = 64  # rows a page of the KV cache
CHUNK = 8 * PAGE  # keys whose softmax is summed on its own, at fixed places of a sequence


@dataclass(frozen=True, eq=False)
class Count:
    """A size that is known only when a program runs, such as the rows of a batch.

    Attributes:
        name: what it counts.
        most: its largest value; buffers are made for it.
        cell: where the device keeps it.
    """

    name: str
    most: int
    cell: object = None

    def __repr__(self) -> str:
        return f"{self.name}<={self.most}"


Size = int | Count


def most(size: Size) -> int:
    """The largest value of a size."""
    return size if isinstance(size, int) else size.most


class Array:
    """A value of a forward pass: float32 or int32, of `shape`, somewhere on a device.

    Only the first size may be a `Count`. Operations return new Arrays and nothing is written in place, but for
    `Ops.add_rows`, which uses its argument up.
    NumPy functions raise on it: they would run once, when a program is recorded, and go stale.
    """

    __slots__ = ("data", "dtype", "ops", "shape")
    __array_ufunc__ = None

    def __init__(self, ops: Ops, data: object, shape: tuple[Size, ...], dtype: str = "f32") -> None:
        self.ops, self.data, self.shape, self.dtype = ops, data, shape, dtype

    def __array__(self, *_: object, **__: object) -> npt.NDArray[np.generic]:
        raise TypeError("NumPy cannot take an ops.Array; use operations of its `ops`, or .numpy() after a run")

    def __add__(self, other: Array) -> Array:
        return self.ops.add(self, other) if isinstance(other, Array) else NotImplemented

    def __mul__(self, other: Array | float) -> Array:
        if isinstance(other, Array):
            return self.ops.multiply(self, other)
        if isinstance(other, Real):
            return self.ops.scale(self, float(other))
        return NotImplemented

    __rmul__ = __mul__

    def reshape(self, *shape: int) -> Array:
        """The same values with other sizes after the first, which stays: reshape(heads, width)."""
        whole = (self.shape[0], *shape)
        if product(whole[1:]) != product(self.shape[1:]):
            raise ModelError(f"cannot reshape {self.shape} to {whole}")
        return self.ops.reshape(self, whole)

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        """Part of the last dimension: x[..., 3:8] as x[:, 3:8]. A view."""
        if not (isinstance(index, tuple) and all(i == slice(None) for i in index[:-1]) and len(index) == self.rank):
            raise ModelError("only the last dimension of an Array can be cut, as in x[:, 0:8]")
        start, stop, step = index[-1].indices(most(self.shape[-1]))
        if step != 1:
            raise ModelError("an Array is cut in steps of 1")
        return self.ops.cut(self, start, stop)

    def numpy(self) -> npt.NDArray[np.generic]:
        """A copy of the values as they are now."""
        return self.ops.numpy(self)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def width(self) -> int:
        """The last size."""
        return most(self.shape[-1])

    def __repr__(self) -> str:
        return f"Array({self.shape}, {self.dtype})"


def product(sizes: Sequence[Size]) -> int:
    result = 1
    for size in sizes:
        result *= most(size)
    return result


class Weight(Protocol):
    """A weight matrix laid out for a device."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def bytes(self) -> int: ...


class Pages(Protocol):
    """The KV memory of one group of layers: pages of PAGE rows."""

    @property
    def layers(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    def read(self, pages: Sequence[int]) -> npt.NDArray[np.uint8]:
        """What some pages hold in all layers, [pages, bytes of one]: as it lies, for `write`."""
        ...

    def write(self, pages: Sequence[int], contents: npt.NDArray[np.uint8]) -> None:
        """Put there what `read` gave. Only while nothing runs. Raises ModelError for another shape."""
        ...


@dataclass(frozen=True, eq=False)
class Reads:
    """What each row of a batch may see of one KV group. All int32.

    Attributes:
        tables: [sequences, pages] the pages of each sequence, in order.
        sequence: [rows] which of the tables the row reads.
        first, last: [rows] the keys it sees: first <= key < last. Equal values mean none, and zeros come out.
        Rows of one sequence stand together in a batch.
    """

    tables: Array
    sequence: Array
    first: Array
    last: Array


class Rows(Protocol):
    """For each row of a batch, the row of an embedding that stands there instead, or none. Filled from outside.

    A table of places: embeddings are read where they lie, and what is set stays alive until it is replaced or
    cleared. All are of one width, which may be more than an operation reads. Change it only while nothing runs that
    reads it.
    """

    @property
    def count(self) -> int:
        """Rows of the largest batch."""
        ...

    def set(self, place: int, embeddings: Array, row: int, rows: int = 1) -> None:
        """Rows `row`, `row` + 1, ... of `embeddings` [n, width] stand at `place` and after it."""
        ...

    def clear(self, place: int = 0, rows: int | None = None) -> None:
        """Nothing stands at `rows` rows from `place` on (None: at all that follow)."""
        ...


class Ops(ExpertOps, RecurrentOps, Protocol):
    """The operations of one device. The same promises hold on all; a device that cannot keep one raises.

    Rows of a result depend on the same rows of the arguments alone, bit for bit (but for `attend`, whose rows
    depend on the keys that they see).
    """

    def pack(self, raw: Raw, *, rounded: bool = False) -> Weight:
        """Lay a weight matrix out for this device. Done once, at load.

        rounded: floats of 16 bits may become integers of 16 bits that share a scale, and so may x of `linear`, which
        loses less than the floats did. The CPU does so where it has AVX-512 VNNI or AVX-VNNI; its results are not
        those of a CPU without.
        """
        ...

    def stored(self, raw: Raw) -> Weight:
        """A table for `embed` alone, of which nothing is held: `raw.read` is asked for rows when something runs.

        What it raises comes out of that run. The ids of such an `embed` are an input, where operations are recorded.
        """
        ...

    def constant(self, values: npt.NDArray[np.generic]) -> Array:
        """Values that never change: norms, biases, tables."""
        ...

    def linear(
        self, x: Array, w: Weight, bias: Array | None = None, residual: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:  # fmt: skip
        """x [n, inputs] -> [n, outputs]: activation(x @ w.T (+ bias [outputs])) (+ residual [n, outputs])."""
        ...

    def embed(self, ids: Array, w: Weight) -> Array:
        """Rows of a table: ids [n] -> [n, inputs]. An id outside the table is a DeviceError when it runs."""
        ...

    def take(self, x: Array, rows: Array) -> Array:
        """x [n, ...] of either type, rows [m] int32 -> [m, ...]."""
        ...

    def put(self, x: Array, y: Array, places: Array) -> Array:
        """x [n, width] with rows of y [m, width] among its own: row i becomes y[places[i]]; where negative, it stays.

        places: int32 [n].
        """
        ...

    def rows(self, count: int) -> Rows:
        """A table for `overlay`, of batches of up to `count` rows. Nothing stands in it yet."""
        ...

    def overlay(self, x: Array, rows: Rows) -> Array:
        """x [n, width] with the rows that `rows` names in the place of its own; n at most rows.count.

        Of an embedding that is wider, the first `width` values are taken.
        """
        ...

    def add_rows(self, x: Array, rows: Rows, first: int) -> Array:
        """x [n, width] and, in the rows that `rows` names, values `first` to `first + width` of the embeddings.

        x is used up: its memory may be the result's. Where `rows` names nothing, nothing is done.
        """
        ...

    def fold(self, x: Array, k: int) -> Array:
        """x [n * k, width] -> [n, k * width]: each k neighbours side by side. n must be known."""
        ...

    def mean_rows(self, x: Array, k: int) -> Array:
        """x [n * k, width] -> [n, width]: the mean of each k neighbours. n must be known."""
        ...

    def rms_norm(self, x: Array, w: Array | None, eps: float) -> Array:
        """x / sqrt(mean(x**2) + eps) * w over the last dimension (Zhang and Sennrich 2019)."""
        ...

    def layer_norm(self, x: Array, w: Array, b: Array | None, eps: float) -> Array:
        """(x - mean) / sqrt(variance + eps) * w + b over the last dimension (Ba et al. 2016)."""
        ...

    def rope_table(
        self, positions: Array, frequencies: Array, scale: float = 1.0, axis: Array | None = None, *,
        growth: Array | None = None, every: int = 1,
    ) -> Array:  # fmt: skip
        """positions [n] int32, frequencies [pairs] (radians a position) -> [n, 2, pairs]: cosines and sines.

        With `axis` [pairs] int32, positions are [n, axes] and pair i turns by positions[:, axis[i]].
        With `growth` [steps], the values of position p (on the first axis) are multiplied by growth[p // every], too;
        by the last number where there is none.
        """
        ...

    def rope(self, x: Array, table: Array, pairing: Pairing) -> Array:
        """Rotate pairs of x [n, heads, width] (Su et al. 2021). What the table's pairs do not cover passes through.

        "neighbours" pairs 2i with 2i + 1, "halves" i with i + pairs, "quarters" does so in each half by itself, where
        an even number of pairs is needed: i with i + pairs / 2, for i up to that and again from `pairs` on.
        """
        ...

    def glu(self, gate: Array, up: Array, kind: Glu) -> Array:
        """activation(gate) * up (Shazeer 2020)."""
        ...

    def activate(self, x: Array, kind: Activation) -> Array: ...

    def add(self, x: Array, y: Array) -> Array:
        """y has x's shape, or is one row of it."""
        ...

    def multiply(self, x: Array, y: Array) -> Array: ...  # y as in `add`

    def scale(self, x: Array, factor: float) -> Array: ...

    def clamp(self, x: Array, least: float, most: float) -> Array:
        """x, at least `least` and at most `most`, which may be infinite; a NaN stays one."""
        ...

    def softcap(self, x: Array, cap: float) -> Array:
        """cap * tanh(x / cap): nearly x where it is small, and never beyond the cap (Bello et al. 2016)."""
        ...

    def pages(self, *, layers: int, heads: int, width: int, count: int, kind: PageType) -> Pages:
        """KV memory for `layers` layers of `heads` keys and values, each `width` wide."""
        ...

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        """Write k, v [n, heads, width] to slots [n] (page * PAGE + row in page); a negative slot is skipped."""
        ...

    def attend(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        """softmax(scale * q k) v over the keys that each row sees: q [n, heads, width] -> the same shape.

        Query head h reads KV head h // (heads / KV heads). softcap c > 0 makes scores c * tanh(score / c), without
        alibi. sinks [heads] are scores of one more key whose value is 0 (Xiao et al. 2023, arXiv 2309.17453).
        """
        ...

    def attend_dense(
        self, q: Array, k: Array, v: Array, first: Array, last: Array, *, scale: float, parts: int = 1,
        bias: Array | None = None, softcap: float = 0.0, like: Weight | None = None,
    ) -> Array:  # fmt: skip
        """softmax(scale * q k + bias) v without a cache: q [n, heads, width], k, v [m, KV heads, width] -> q's shape.

        Row i sees rows first[i] <= j < last[i] (int32 [n]) of k and v; zeros come out where it sees none. Query
        head h reads KV head h // (heads / KV heads). Rows fall into `parts` of equal size, from whose beginning
        first and last count: none sees another, and each gives the bits that it gives alone.

        bias [n, heads, m / parts] may have the rows of one part, which then serve all, and 1 head, which serves all
        heads. -inf hides a key as if it were not there, if its value is a number. softcap as in `attend`, without a
        bias.

        like: a weight that says how exact products have to be: as those of `linear` with it. Where these are of bytes
        (8 bits a value and fewer), or of 16-bit integers (see `pack`), queries, keys, weights and values may be, too.
        The CPU does so where it has AVX-512 VNNI or AVX-VNNI and there is neither a bias nor a softcap: a tower loses
        less than by its linear layers, but its results are not those of a CPU without.
        """
        ...

    def attention_weights(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        """What `attend` would multiply values with: [n, heads, keys]. For inspection: not recordable."""
        ...

    def apply_weights(self, weights: Array, pages: Pages, layer: int, reads: Reads) -> Array:
        """The rest of `attend` after `attention_weights`: [n, heads, width]. Not recordable."""
        ...

    def candidates(self, x: Array, k: Size) -> tuple[Array, Array, Array]:
        """x [n, width] -> places [n, k] int32, values [n, k], sums [n] of e**(x - the largest); k at most the width.

        The k largest of each row, largest first; equal ones in the order of their places. Where k is a Count, what
        lies past it is undefined. A row with a NaN has a sum that is NaN, and so has one whose largest value is
        infinite: the rest of it means nothing.
        """
        ...

    def recorded(self, key: Hashable, build: Callable[..., Array], *inputs: npt.NDArray[np.generic]) -> Array:
        """build(ops, *inputs as Arrays) of float32 or int32 values, from a bounded cache of programs.

        `key` names what `build` computes: it runs for the first inputs of a key and their shapes, and what it then
        asked of `ops` is done again for later ones. So it looks at no values, and keeps none.
        """
        ...

    def reshape(self, x: Array, shape: tuple[Size, ...]) -> Array: ...

    def cut(self, x: Array, start: int, stop: int) -> Array: ...

    def numpy(self, x: Array) -> npt.NDArray[np.generic]: ...
