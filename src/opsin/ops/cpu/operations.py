"""The operations of the CPU: each checks shapes, takes memory, and names its kernel and arguments.

The same methods record and run: what happens with an operation is the tape's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from opsin.errors import DeviceError, ModelError
from opsin.ops import Activation, Array, Glu, Pages, PageType, Pairing, Raw, Reads, Rows, Size, Weight, most, product
from opsin.ops.alibi import Alibi
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.attention import Attention, Scoring
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.dense import Dense
from opsin.ops.cpu.experts import ExpertOperations
from opsin.ops.cpu.kv import KvPages
from opsin.ops.cpu.overlay import PlacedRows, placed
from opsin.ops.cpu.pack import PackedWeight, Packer
from opsin.ops.cpu.programs import Programs
from opsin.ops.cpu.recurrent import RecurrentOperations
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.shapes import groups_of, need_same, needs_width
from opsin.ops.cpu.stored import StoredTable, embed_stored
from opsin.ops.cpu.tape import TYPES, Eager, Lease, Place, Tape, place, view
from opsin.ops.cpu.tiles import linear_scratch
from opsin.ops.cpu.weight_cache import WeightCache
from opsin.ops.cpu.words import float_bits
from opsin.ops.layout import RECORD, STRIP, Layout, strips

_ROWS_BYTES = 4096  # elementwise work below this a thread is not worth sharing


class Operations(ExpertOperations, RecurrentOperations):
    """`opsin.ops.Ops` over a tape. For one thread at a time; its arrays may be dropped on any."""

    def __init__(self, tape: Tape, kept: WeightCache | None = None) -> None:
        self.tape = tape
        self._bytes: WeakKeyDictionary[Lease, dict[tuple[int, ...], tuple[Array, ...]]] = WeakKeyDictionary()
        self._attention, self._scratch = Attention(self), Scratch(tape)
        self._dense = Dense(self, self._scratch)
        self._programs = Programs(self, Operations)
        self._packer = Packer(tape.code, tape.team, kept)

    # Weights and constants

    def pack(self, raw: Raw, *, rounded: bool = False) -> Weight:
        return self._packer.pack(raw, rounded=rounded)

    def stored(self, raw: Raw) -> Weight:
        return StoredTable.of(raw)

    def constant(self, values: npt.NDArray[np.generic]) -> Array:
        dtype = "i32" if np.issubdtype(values.dtype, np.integer) else "f32"
        block = Block(values.size * 4 + 8 * STRIP, zero=True)  # kernels may read two whole strips of a bias
        shape = tuple(int(n) for n in values.shape)
        view(block, 0, shape, dtype)[...] = values.astype(TYPES[dtype])
        return Array(self, Place(Lease(block, None), 0, 4 * product(shape[1:])), shape, dtype)

    # Linear

    def linear(
        self, x: Array, w: Weight, bias: Array | None = None, residual: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:  # fmt: skip
        assert isinstance(w, PackedWeight), "a weight of another device"
        outputs, inputs = w.shape
        if x.rank != 2 or x.width != inputs:
            raise ModelError(f"linear: x is {x.shape}, the weight takes {inputs} inputs")
        needs_width("linear: bias", bias, outputs)
        if residual is not None and residual.shape != (x.shape[0], outputs):
            raise ModelError(f"linear: residual is {residual.shape}, the result {(x.shape[0], outputs)}")
        if activation is not None and residual is not None:
            return self.add(self.linear(x, w, bias, activation=activation), residual)
        if self._dense.takes(x, w):
            return self._dense.linear(x, w, bias, residual, activation)
        y = self.new((x.shape[0], outputs))
        source, reads = self._linear_input(x, w)
        rows = self.tape.cell(x.shape[0])
        extra = [part for part in (bias, residual) if part is not None]
        scratch, size = self._scratch.of(linear_scratch(self.tape.code.isa.dot, w.layout, inputs))
        args = (
            w.block.address, *source, place(y).address, place(y).row, outputs,
            inputs // RECORD if w.layout.kind == "planes" else inputs,
            rows if isinstance(rows, int) else int(rows.ctypes.data),
            place(bias).address if bias is not None else 0,
            place(residual).address if residual is not None else 0,
            place(residual).row if residual is not None else 0, scratch.block.address, size,
            w.layout.group // 4,
        )  # fmt: skip
        options = w.layout.options if activation is None else {**w.layout.options, "activation": activation}
        self.tape.emit(
            Kernel.of("linear", **options), args, items=strips(outputs), reads=[*reads, *extra], writes=[y],
            keep=(w, rows, scratch),
        )  # fmt: skip
        return y

    def _linear_input(self, x: Array, w: PackedWeight) -> tuple[tuple[int, ...], list[Array]]:
        """(x, bytes a row, scales, bytes a row, sums, lifts) and the Arrays behind them."""
        if w.layout.kind == "int16":
            integers = self._dense.integers(x)
            q, scales = (place(p) for p in integers)
            return (q.address, q.row, scales.address, scales.row, 0, 0), list(integers)
        if w.layout.kind != "planes":
            return (place(x).address, place(x).row, 0, 0, 0, 0), [x]
        parts = self._quantised(x, w.layout)
        q, scales, sums, lifts = (place(p) for p in parts)
        return (q.address, q.row, scales.address, scales.row, sums.address, lifts.address), list(parts)

    def _quantised(self, x: Array, layout: Layout) -> tuple[Array, ...]:
        """x as bytes; done once for all weights that read it and are biased alike."""
        group, zero = layout.group, 0 if self.tape.code.isa.dot == "maddubs" else layout.zero
        at = place(x)
        known = self._bytes.setdefault(at.lease, {})
        key = (at.offset, x.width, group, zero)
        if key not in known:
            groups = x.width // RECORD
            sums = (x.shape[0], groups * (RECORD // group))
            q = self.new((x.shape[0], x.width // 4), "i32")  # bytes, four an element
            parts = (q, self.new((x.shape[0], groups)), self.new(sums, "i32"), self.new(sums))
            args = (at.address, at.row, x.width, *(place(p).address for p in parts))
            kernel = Kernel.of("quantise", group=group, zero=zero)
            self.tape.emit(kernel, args, items=x.shape[0], reads=[x], writes=parts)
            known[key] = parts
        return known[key]

    # Rows

    def embed(self, ids: Array, w: Weight) -> Array:
        if isinstance(w, StoredTable):
            return embed_stored(self, ids, w, self._scratch)
        assert isinstance(w, PackedWeight), "a weight of another device"
        outputs, inputs = w.shape
        y = self.new((ids.shape[0], inputs))
        args = (place(ids).address, w.block.address, outputs, inputs, place(y).address)
        kernel = Kernel.of("rows", part="embed", **w.layout.options)
        self.tape.emit(kernel, args, items=ids.shape[0], reads=[ids], writes=[y], keep=(w,))
        return y

    def take(self, x: Array, rows: Array) -> Array:
        y = self.new((rows.shape[0], *x.shape[1:]), x.dtype)
        at, count = place(x), self.tape.cell(x.shape[0])
        cell = count if isinstance(count, int) else int(count.ctypes.data)
        args = (place(rows).address, at.address, at.row, product(x.shape[1:]), place(y).address, cell)
        kernel = Kernel.of("rows", part="take")
        self.tape.emit(kernel, args, items=rows.shape[0], reads=[x, rows], writes=[y], keep=(count,))
        return y

    def put(self, x: Array, y: Array, places: Array) -> Array:
        if x.rank != 2 or y.rank != 2 or x.width != y.width or places.shape != x.shape[:1]:
            raise ModelError(f"put: x is {x.shape}, y {y.shape}, places {places.shape}")
        out, count = self.new(x.shape), self.tape.cell(y.shape[0])
        args = (
            place(places).address, place(x).address, place(x).row, place(y).address, place(y).row, x.width,
            place(out).address, count if isinstance(count, int) else int(count.ctypes.data),
        )  # fmt: skip
        kernel = Kernel.of("rows", part="put")
        self.tape.emit(kernel, args, items=x.shape[0], reads=[x, y, places], writes=[out], keep=(count,))
        return out

    def rows(self, count: int) -> Rows:
        return PlacedRows(count)

    def overlay(self, x: Array, rows: Rows) -> Array:
        table = placed(rows)
        if x.rank != 2 or most(x.shape[0]) > table.count:
            raise ModelError(f"overlay: x is {x.shape}, the table has {table.count} rows")
        table.read(x.width)
        y = self.new(x.shape)
        args = (place(x).address, place(x).row, table.block.address, x.width, place(y).address)
        kernel, grain = Kernel.of("rows", part="overlay"), max(1, _ROWS_BYTES // x.width)
        self.tape.emit(kernel, args, items=x.shape[0], reads=[x, table.block], writes=[y], grain=grain, keep=(table,))
        return y

    def add_rows(self, x: Array, rows: Rows, first: int) -> Array:
        table, at = placed(rows), place(x)
        if x.rank != 2 or most(x.shape[0]) > table.count or first < 0:
            raise ModelError(f"add_rows: x is {x.shape}, the table has {table.count} rows, from value {first} on")
        table.read(first + x.width)
        count = self.tape.cell(x.shape[0])
        cell = count if isinstance(count, int) else int(count.ctypes.data)
        args = (at.address, at.row, table.block.address, 4 * first, x.width, cell)
        kernel = Kernel.of("rows", part="add")
        grain = max(1, _ROWS_BYTES // x.width)
        self.tape.emit(
            kernel, args, items=table.reach, reads=[x, table.block], writes=[x], grain=grain, keep=(table, count)
        )
        return x

    def fold(self, x: Array, k: int) -> Array:
        rows = groups_of("fold", x, k)
        if place(x).row != 4 * x.width:
            x = self._each("copy", x)
        at = place(x)
        return Array(self, Place(at.lease, at.offset, k * at.row), (rows, k * x.width), x.dtype)

    def mean_rows(self, x: Array, k: int) -> Array:
        y = self.new((groups_of("mean_rows", x, k), x.width))
        args = (place(x).address, place(x).row, k, x.width, place(y).address)
        self.tape.emit(Kernel.of("rows", part="mean"), args, items=y.shape[0], reads=[x], writes=[y])
        return y

    def candidates(self, x: Array, k: Size) -> tuple[Array, Array, Array]:
        if x.rank != 2 or not 1 <= most(k) <= x.width:
            raise ModelError(f"candidates: {k} of x, which is {x.shape}")
        rows, count = x.shape[0], self.tape.cell(k)
        results = self.new((rows, most(k)), "i32"), self.new((rows, most(k))), self.new((rows,))
        args = (
            place(x).address, place(x).row, x.width, count if isinstance(count, int) else int(count.ctypes.data),
            most(k), *(place(y).address for y in results),
        )  # fmt: skip
        self.tape.emit(Kernel.of("candidates"), args, items=rows, reads=[x], writes=results, keep=(count,))
        return results

    # Values one by one, norms

    def rms_norm(self, x: Array, w: Array | None, eps: float) -> Array:
        needs_width("rms_norm: weight", w, x.width)
        return self._each("rms_norm", x, bias=w, number=eps, width=x.width)

    def layer_norm(self, x: Array, w: Array, b: Array | None, eps: float) -> Array:
        needs_width("layer_norm: weight", w, x.width)
        needs_width("layer_norm: bias", b, x.width)
        return self._each("layer_norm", x, y=w, bias=b, number=eps, width=x.width)

    def glu(self, gate: Array, up: Array, kind: Glu) -> Array:
        need_same(gate, up)
        return self._each(f"glu_{kind}", gate, y=up)

    def activate(self, x: Array, kind: Activation) -> Array:
        return self._each(kind, x)

    def add(self, x: Array, y: Array) -> Array:
        need_same(x, y)
        return self._each("add", x, y=y)

    def multiply(self, x: Array, y: Array) -> Array:
        need_same(x, y)
        return self._each("multiply", x, y=y)

    def scale(self, x: Array, factor: float) -> Array:
        return self._each("scale", x, number=factor)

    def clamp(self, x: Array, least: float, most: float) -> Array:
        return self._each("clamp", x, number=least, second=most)

    def softcap(self, x: Array, cap: float) -> Array:
        return self._each("softcap", x, number=cap)

    def _each(
        self, name: str, x: Array, *, y: Array | None = None, bias: Array | None = None, number: float = 0.0,
        second: float = 0.0, width: int = 0,
    ) -> Array:  # fmt: skip
        """A pointwise kernel. `width` cuts rows in parts of so many values; y with one row serves all rows."""
        out, whole = self.new(x.shape), product(x.shape[1:])
        width = width or whole
        single = y is not None and y.rank < x.rank
        args = (
            place(x).address, place(x).row, place(y).address if y else 0, place(y).row if y and not single else 0,
            place(out).address, place(out).row, width, place(bias).address if bias else 0, float_bits(number),
            whole // width, float_bits(second),
        )  # fmt: skip
        reads = [a for a in (x, y, bias) if a is not None]
        grain = max(1, _ROWS_BYTES // whole)
        self.tape.emit(
            Kernel.of("pointwise", name=name), args, items=x.shape[0], reads=reads, writes=[out], grain=grain
        )
        return out

    # Positions

    def rope_table(
        self, positions: Array, frequencies: Array, scale: float = 1.0, axis: Array | None = None, *,
        growth: Array | None = None, every: int = 1,
    ) -> Array:  # fmt: skip
        pairs, at = frequencies.width, place(positions)
        if positions.rank != (1 if axis is None else 2) or every < 1:
            raise ModelError(f"rope_table: positions {positions.shape}, axes {axis is not None}, growth every {every}")
        needs_width("rope_table: axis", axis, pairs)
        out = self.new((positions.shape[0], 2, pairs))
        args = (at.address, at.row, place(frequencies).address, place(axis).address if axis else 0, pairs,
                float_bits(scale), place(out).address, place(growth).address if growth else 0,
                growth.width if growth else 0, every)  # fmt: skip
        kernel = Kernel.of("rope", part="table", axes=axis is not None, grows=growth is not None)
        reads = [array for array in (positions, frequencies, axis, growth) if array is not None]
        self.tape.emit(kernel, args, items=positions.shape[0], reads=reads, writes=[out])
        return out

    def rope(self, x: Array, table: Array, pairing: Pairing) -> Array:
        heads, width, pairs = most(x.shape[1]), x.width, table.width
        if x.rank != 3 or 2 * pairs > width or (pairing == "quarters" and pairs % 2):
            raise ModelError(f"rope: x is {x.shape}, the table has {pairs} pairs")
        out = self.new(x.shape)
        a, t, o, kernel = place(x), place(table), place(out), Kernel.of("rope", part="rotate", pairing=pairing)
        args = (a.address, a.row, t.address, t.row, o.address, o.row, heads, width, pairs)
        self.tape.emit(kernel, args, items=x.shape[0], reads=[x, table], writes=[out])
        return out

    # Attention

    def pages(self, *, layers: int, heads: int, width: int, count: int, kind: PageType) -> Pages:
        return KvPages(layers=layers, heads=heads, width=width, count=count, kind=kind)

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        self._attention.store(pages, layer, k, v, slots)

    def attend(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        return self._attention.attend(q, pages, layer, reads, Scoring(scale, softcap, sinks, alibi))

    def attend_dense(
        self, q: Array, k: Array, v: Array, first: Array, last: Array, *, scale: float, parts: int = 1,
        bias: Array | None = None, softcap: float = 0.0, like: Weight | None = None,
    ) -> Array:  # fmt: skip
        assert like is None or isinstance(like, PackedWeight), "a weight of another device"
        bits = 32 if like is None else {"planes": 8, "int16": 16}.get(like.layout.kind, 32)
        scoring = Scoring(scale, softcap)
        return self._attention.attend_dense(q, k, v, first, last, scoring, parts=parts, bias=bias, bits=bits)

    def attention_weights(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        return self._attention.weights(q, pages, layer, reads, Scoring(scale, softcap, sinks, alibi))

    def apply_weights(self, weights: Array, pages: Pages, layer: int, reads: Reads) -> Array:
        return self._attention.apply(weights, pages, layer, reads)

    # Programs

    def recorded(self, key: Hashable, build: Callable[..., Array], *inputs: npt.NDArray[np.generic]) -> Array:
        return self._programs.run(key, build, inputs)

    # Views

    def reshape(self, x: Array, shape: tuple[Size, ...]) -> Array:
        if place(x).row != 4 * product(x.shape[1:]) and len(shape) != 2:
            x = self._each("copy", x)
        return Array(self, x.data, shape, x.dtype)

    def cut(self, x: Array, start: int, stop: int) -> Array:
        if x.rank != 2:
            raise ModelError(f"only rows of one dimension are cut, not {x.shape}")
        at = place(x)
        return Array(self, Place(at.lease, at.offset + 4 * start, at.row), (x.shape[0], stop - start), x.dtype)

    def numpy(self, x: Array) -> npt.NDArray[np.generic]:
        if self.tape.closed or not self.eager:
            raise DeviceError("an Array of a recording has no values", hint="read the outputs of the recorded program")
        return self.peek(x)

    def peek(self, x: Array) -> npt.NDArray[np.generic]:
        """A copy of what lies at an Array's place now."""
        at = place(x)
        shape = tuple(most(n) for n in x.shape)
        strides = (at.row, *(4 * product(shape[i + 1 :]) for i in range(1, len(shape))))
        return np.ndarray(shape, TYPES[x.dtype], at.block.data, at.offset, strides).copy()

    @property
    def eager(self) -> bool:
        return isinstance(self.tape, Eager)

    def new(self, shape: tuple[Size, ...], dtype: str = "f32") -> Array:
        return self.tape.new(self, shape, dtype)
