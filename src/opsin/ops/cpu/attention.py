"""Attention over pages: what the kernels `plan_reads`, `attend` and `merge_chunks` are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import Array, Pages, Reads, Size, most
from opsin.ops.alibi import Alibi
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.kv import KvPages
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.tape import Place, place
from opsin.ops.cpu.tiles import QUERIES, attention_scratch, int_rows, int_scratch, value_vectors
from opsin.ops.cpu.words import float_bits
from opsin.ops.reference import DensePages, Reference

if TYPE_CHECKING:
    from opsin.ops.cpu.operations import Operations

_LOG2E = 1.4426950408889634
_SLOTS = 256  # chunks of cut rows that a step can hold
_TILES_A_THREAD = 4  # fewer tiles than this a thread, and rows with many keys are cut


@dataclass(frozen=True, eq=False)
class _Plan:
    """Tiles of one step, shared by the layers that read alike."""

    tiles: Array
    merges: Array
    items: npt.NDArray[np.int64]  # of attend, of merge_chunks: written by plan_reads


@dataclass(frozen=True, eq=False)
class _Held:
    """Keys and values: one layer of a cache, or rows of a matrix."""

    keys: Block
    values: Block
    heads: int
    kind: str
    owner: object  # keeps the blocks


@dataclass(frozen=True)
class _Dense:
    """Rows of matrices as keys and values, how many rows of queries and of keys make a part, what scores get added."""

    k: Place
    v: Place
    rows: int
    keys: int
    bias: Array | None

    def bias_args(self) -> tuple[int, ...]:
        """What `attend` takes of the bias."""
        if self.bias is None:
            return ()
        rows, heads = most(self.bias.shape[0]), most(self.bias.shape[1])
        head = 4 * self.bias.width if heads > 1 else 0
        return place(self.bias).address, place(self.bias).row, head, rows, float_bits(_LOG2E)


@dataclass(frozen=True)
class Scoring:
    """How `Ops.attend` makes scores."""

    scale: float
    softcap: float = 0.0
    sinks: Array | None = None
    alibi: Alibi | None = None

    def check(self, rows: Size, heads: int) -> None:
        """Raises ModelError where something is of other heads or rows."""
        if self.sinks is not None and self.sinks.shape != (heads,):
            raise ModelError(f"attend: sinks are {self.sinks.shape}, not {(heads,)}")
        if self.alibi is None:
            return
        if (self.alibi.slopes.shape, self.alibi.places.shape) != ((heads,), (rows,)):
            raise ModelError(f"attend: slopes are {self.alibi.slopes.shape}, places {self.alibi.places.shape}")
        if self.softcap:
            raise ModelError("attend: scores that fall with distance are not bounded", hint="leave one of them out")

    @property
    def arrays(self) -> list[Array]:
        """What the kernel reads of it."""
        of_rows = [] if self.alibi is None else [self.alibi.slopes, self.alibi.places]
        return [*([] if self.sinks is None else [self.sinks]), *of_rows]

    def args(self) -> tuple[int, ...]:
        """What `attend` takes of them behind a bias, which is not there."""
        if not self.arrays:
            return ()
        sunk = 0 if self.sinks is None else place(self.sinks).address
        sloped = () if self.alibi is None else (place(self.alibi.slopes).address, place(self.alibi.places).address)
        return (0, 0, 0, 0, 0, sunk, *sloped)

    def kind(self) -> dict[str, bool]:
        """Of the kernel, which without them keeps its name."""
        told = {"sinks": self.sinks is not None, "alibi": self.alibi is not None}
        return {name: True for name, there in told.items() if there}


class Attention:
    """The attention part of `Operations`."""

    def __init__(self, ops: Operations) -> None:
        self._ops = ops
        self._plans: WeakKeyDictionary[Reads, dict[tuple[int, int, int, bool], _Plan]] = WeakKeyDictionary()
        self._scratch = Scratch(ops.tape)
        self._dense: Reads | None = None

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        pool = _pool(pages)
        if k.shape[1:] != (pool.heads, pool.width) or v.shape != k.shape:
            raise ModelError(f"store: k is {k.shape}, v {v.shape}; the pages hold {pool.heads} x {pool.width}")
        keys, values = pool.keys[layer], pool.values[layer]
        args = (
            place(k).address, place(k).row, place(v).address, place(v).row, place(slots).address, keys.address,
            values.address, pool.heads, pool.width, pool.count,
        )  # fmt: skip
        kernel = Kernel.of("pages", kind=pool.kind)
        self._ops.tape.emit(
            kernel, args, items=k.shape[0], reads=[k, v, slots], writes=[keys, values], grain=4, keep=(pool,)
        )

    def attend(self, q: Array, pages: Pages, layer: int, reads: Reads, scoring: Scoring) -> Array:
        pool, heads = _pool(pages), most(q.shape[1])
        if q.width != pool.width or heads % pool.heads:
            raise ModelError(f"attend: q is {q.shape}, the pages hold {pool.heads} x {pool.width}")
        _check_rows("attend", q, sequence=reads.sequence, first=reads.first, last=reads.last)
        held = _Held(pool.keys[layer], pool.values[layer], pool.heads, pool.kind, pool)
        scoring.check(q.shape[0], heads)
        return self._attend(q, held, reads, scoring)

    def attend_dense(
        self, q: Array, k: Array, v: Array, first: Array, last: Array, scoring: Scoring, *, parts: int,
        bias: Array | None, bits: int,
    ) -> Array:  # fmt: skip
        """Keys and values are read where they lie. `bits`: how exact products have to be."""
        heads, width = most(k.shape[1]), k.width
        if q.rank != 3 or q.width != width or most(q.shape[1]) % heads or v.shape != k.shape:
            raise ModelError(f"attend_dense: q is {q.shape}, k {k.shape}, v {v.shape}")
        _check_rows("attend_dense", q, first=first, last=last)
        if bias is not None and scoring.softcap:
            raise ModelError("attend_dense: scores with a bias have no cap")
        rows, keys = most(q.shape[0]), most(k.shape[0])
        if parts < 1 or rows % parts or keys % parts:
            raise ModelError(f"attend_dense: {rows} rows and {keys} keys are not {parts} equal parts")
        _check_bias(bias, rows, rows // parts, most(q.shape[1]), keys // parts)
        reads = self._dense_reads(first, last)
        held = _Held(place(k).block, place(v).block, heads, "dense", (k, v))
        dense = _Dense(place(k), place(v), rows // parts, keys // parts, bias)
        plain = bias is None and not scoring.softcap
        if bits < 32 and plain and self._ops.tape.code.isa.dot == "vpdpbusd":
            return self._attend_integers(q, held, reads, scoring.scale, dense, bits)
        return self._attend(q, held, reads, scoring, dense)

    def _dense_reads(self, first: Array, last: Array) -> Reads:
        """What rows see; the same as last time for the same rows, so that a plan serves all layers of an encoder."""
        known = self._dense
        if known is None or known.first is not first or known.last is not last:
            known = self._dense = Reads(first, first, first, last)  # neither tables nor sequences: they are not read
        return known

    def _attend(self, q: Array, held: _Held, reads: Reads, scoring: Scoring, dense: _Dense | None = None) -> Array:
        ops, heads, isa = self._ops, most(q.shape[1]), self._ops.tape.code.isa
        group, part = heads // held.heads, (dense.rows, dense.keys) if dense is not None else (0, 0)
        plan = self._plan(reads, held.heads, group, q.shape[0], part[0])
        out, partial = ops.new(q.shape), ops.new((_SLOTS, heads, q.width + 2))
        vectors = value_vectors(q.width, isa.lanes, isa.registers)
        scratch, size = self._scratch.of(attention_scratch(q.width, group, isa.lanes, vectors))
        if dense is not None:
            keys, values, steps = dense.k.address, dense.v.address, (dense.k.row, dense.v.row)
        else:
            keys, values = held.keys.address, held.values.address
            steps = place(reads.tables).address, place(reads.tables).row
        # Scores are made powers of 2; a cap is c * tanh(s / c) = c * (1 - 2 / (e**(2 s / c) + 1)).
        softcap, sinks = scoring.softcap, scoring.sinks
        factor = scoring.scale if softcap else scoring.scale * _LOG2E
        args = (
            place(q).address, place(q).row, place(out).address, place(out).row, keys, values, place(plan.tiles).address,
            *steps, place(reads.sequence).address, place(reads.first).address, place(reads.last).address, group,
            held.heads, q.width, float_bits(factor), float_bits(softcap * _LOG2E),
            float_bits(2 / softcap if softcap else 0.0), place(partial).address, scratch.block.address, size, *part,
            *(dense.bias_args() if dense is not None else ()), *scoring.args(),
        )  # fmt: skip
        bias = [dense.bias] if dense is not None and dense.bias is not None else []
        more: dict[str, bool] = {"biased": True} if bias else {}  # else the kernel keeps its name
        kernel = Kernel.of("attend", kind=held.kind, softcap=softcap > 0, vectors=vectors, **more, **scoring.kind())
        sources = [q, plan.tiles, reads.tables, reads.sequence, reads.first, reads.last, *bias, *scoring.arrays]
        ops.tape.emit(
            kernel, args, items=plan.items[:1], reads=[*sources, held.keys, held.values], writes=[out, partial],
            keep=(held, plan, scratch),
        )  # fmt: skip
        sums = (
            place(plan.merges).address, place(partial).address, place(out).address, place(out).row, heads, q.width,
            *(() if sinks is None else (place(sinks).address,)),
        )  # fmt: skip
        sink: dict[str, bool] = {} if sinks is None else {"sinks": True}
        ops.tape.emit(
            Kernel.of("merge_chunks", **sink), sums, items=plan.items[1:],
            reads=[plan.merges, *([] if sinks is None else [sinks])], writes=[partial, out], keep=(plan,),
        )  # fmt: skip
        return out

    def _attend_integers(self, q: Array, held: _Held, reads: Reads, scale: float, dense: _Dense, bits: int) -> Array:
        """`attend_dense` by products of integers."""
        ops, heads = self._ops, most(q.shape[1])
        plan = self._plan(reads, heads, 1, q.shape[0], dense.rows, whole=True)
        out = ops.new(q.shape)
        scratch, size = self._scratch.of(int_scratch(q.width, ops.tape.code.isa.lanes, bits))
        args = (
            place(q).address, place(q).row, place(out).address, place(out).row, dense.k.address, dense.k.row,
            dense.v.address, dense.v.row, place(plan.tiles).address, place(reads.first).address,
            place(reads.last).address, heads, heads // held.heads, q.width, float_bits(scale * _LOG2E), dense.rows,
            dense.keys, scratch.block.address, size,
        )  # fmt: skip
        ops.tape.emit(
            Kernel.of("attend_integers", bits=bits), args, items=plan.items[:1],
            reads=[q, plan.tiles, reads.first, reads.last, held.keys, held.values], writes=[out],
            keep=(held, plan, scratch),
        )  # fmt: skip
        return out

    def _plan(self, reads: Reads, heads: int, group: int, rows: Size, part: int, *, whole: bool = False) -> _Plan:
        """The tiles of a step; made once for all layers that share `reads`. `whole`: large ones, and no row is cut."""
        known, key = self._plans.setdefault(reads, {}), (heads, group, part, whole)
        if key not in known:
            ops = self._ops
            plan = _Plan(
                tiles=ops.new((most(rows) + _SLOTS, 4), "i32"), merges=ops.new((_SLOTS, 3), "i32"),
                items=np.zeros(2, np.int64),
            )  # fmt: skip
            count = ops.tape.cell(rows)
            address = count if isinstance(count, int) else int(count.ctypes.data)
            threads = ops.tape.team.threads
            limit = int_rows(most(rows), heads, threads) if whole else max(1, QUERIES // group)
            args = (
                address, place(reads.sequence).address, place(reads.first).address, place(reads.last).address,
                place(plan.tiles).address, place(plan.merges).address, int(plan.items.ctypes.data),
                int(plan.items.ctypes.data) + 8, limit, heads,
                0 if whole else _TILES_A_THREAD * threads, _SLOTS, part,
            )  # fmt: skip
            sources = [reads.sequence, reads.first, reads.last]
            ops.tape.emit(
                Kernel.of("plan_reads", dense=part > 0), args, items=1, reads=sources, writes=[plan.tiles, plan.merges],
                keep=(count, plan),
            )  # fmt: skip
            known[key] = plan
        return known[key]

    def weights(self, q: Array, pages: Pages, layer: int, reads: Reads, scoring: Scoring) -> Array:
        """By the definition, on copies: inspection is rare."""
        reference, dense, there = self._by_definition(pages, layer, reads)

        def copied(x: Array) -> Array:
            return reference.array(self._ops.numpy(x))

        alibi = scoring.alibi
        seen = reference.attention_weights(
            copied(q), dense, 0, there, scale=scoring.scale, softcap=scoring.softcap,
            sinks=None if scoring.sinks is None else copied(scoring.sinks),
            alibi=None if alibi is None else Alibi(copied(alibi.slopes), copied(alibi.places)),
        )  # fmt: skip
        return self._back(seen)

    def apply(self, weights: Array, pages: Pages, layer: int, reads: Reads) -> Array:
        reference, dense, there = self._by_definition(pages, layer, reads)
        return self._back(reference.apply_weights(reference.array(self._ops.numpy(weights)), dense, 0, there))

    def _by_definition(self, pages: Pages, layer: int, reads: Reads) -> tuple[Reference, DensePages, Reads]:
        pool, reference = _pool(pages), Reference()
        shape = (1, pool.count, -1, pool.heads, pool.width)
        k, v = pool.rows(layer, np.arange(pool.count, dtype=np.int32))
        parts = (reads.tables, reads.sequence, reads.first, reads.last)
        return (
            reference,
            DensePages(k.reshape(shape), v.reshape(shape)),
            Reads(*(reference.array(self._ops.numpy(part)) for part in parts)),
        )

    def _back(self, x: Array) -> Array:
        return self._ops.constant(x.numpy())


def _check_rows(what: str, q: Array, **seen: Array) -> None:
    """Raises ModelError where something that tells what rows see is not of q's rows: kernels would write past these."""
    for name, part in seen.items():
        if part.shape != q.shape[:1]:
            raise ModelError(f"{what}: {name} is {part.shape}, q {q.shape}")


def _check_bias(bias: Array | None, rows: int, part: int, heads: int, keys: int) -> None:
    """Raises ModelError for a bias that is not of all rows or of a part, of all heads or of one, of a part's keys."""
    if bias is None:
        return
    fits = bias.rank == 3 and most(bias.shape[0]) in (rows, part) and most(bias.shape[1]) in (heads, 1)
    if not fits or bias.width != keys:
        raise ModelError(f"attend_dense: the bias is {bias.shape}; ({rows} or {part}, {heads} or 1, {keys}) is needed")


def _pool(pages: Pages) -> KvPages:
    assert isinstance(pages, KvPages), "pages of another device"
    return pages
