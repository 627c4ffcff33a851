"""Attention over pages: what the kernels `plan_reads`, `attend` and `merge_chunks` are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import PAGE, Array, Pages, PageType, Reads, Size, most, product
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.kv import PAGES_SLACK, KvPages
from opsin.ops.cpu.layout import QUERIES, attention_scratch, page_bytes
from opsin.ops.cpu.tape import Lease, place
from opsin.ops.cpu.words import float_bits
from opsin.ops.reference import DensePages, Reference

if TYPE_CHECKING:
    from opsin.ops.cpu.operations import Operations

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
    """Keys and values in pages: of one layer of a cache, or of a call alone."""

    keys: Block
    values: Block
    heads: int
    kind: PageType
    owner: object  # keeps the blocks


class Attention:
    """The attention part of `Operations`."""

    def __init__(self, ops: Operations) -> None:
        self._ops = ops
        self._plans: WeakKeyDictionary[Reads, dict[tuple[int, int], _Plan]] = WeakKeyDictionary()
        self._scratch: dict[int, Lease] = {}
        self._dense: tuple[Reads, Array, tuple[int, int, int]] | None = None

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        pool = _pool(pages)
        if k.shape[1:] != (pool.heads, pool.width) or v.shape != k.shape:
            raise ModelError(f"store: k is {k.shape}, v {v.shape}; the pages hold {pool.heads} x {pool.width}")
        held = _Held(pool.keys[layer], pool.values[layer], pool.heads, pool.kind, pool)
        self._store(held, k, v, slots, pool.count)

    def _store(self, held: _Held, k: Array, v: Array, slots: Array, count: int) -> None:
        args = (
            place(k).address, place(k).row, place(v).address, place(v).row, place(slots).address, held.keys.address,
            held.values.address, held.heads, k.width, count,
        )  # fmt: skip
        self._ops.tape.emit(
            Kernel.of("pages", kind=held.kind), args, items=k.shape[0], reads=[k, v, slots],
            writes=[held.keys, held.values], grain=4, keep=(held,),
        )  # fmt: skip

    def attend(self, q: Array, pages: Pages, layer: int, reads: Reads, scale: float, softcap: float) -> Array:
        pool, heads = _pool(pages), most(q.shape[1])
        if q.width != pool.width or heads % pool.heads:
            raise ModelError(f"attend: q is {q.shape}, the pages hold {pool.heads} x {pool.width}")
        held = _Held(pool.keys[layer], pool.values[layer], pool.heads, pool.kind, pool)
        return self._attend(q, held, reads, scale, softcap)

    def attend_dense(self, q: Array, k: Array, v: Array, first: Array, last: Array, scale: float, parts: int) -> Array:
        """Keys and values go into pages that last as long as the call, parts as sequences; the rest is `attend`."""
        heads, width = most(k.shape[1]), k.width
        if q.rank != 3 or q.width != width or most(q.shape[1]) % heads or v.shape != k.shape:
            raise ModelError(f"attend_dense: q is {q.shape}, k {k.shape}, v {v.shape}")
        for name, part in (("first", first), ("last", last)):
            if part.shape != q.shape[:1]:
                raise ModelError(f"attend_dense: {name} is {part.shape}, q {q.shape}")
        sizes = most(q.shape[0]), most(k.shape[0]), parts
        if parts < 1 or sizes[0] % parts or sizes[1] % parts:
            raise ModelError(f"attend_dense: {sizes[0]} rows and {sizes[1]} keys are not {parts} equal parts")
        reads, slots = self._dense_reads(sizes, first, last)
        tape, count = self._ops.tape, product(reads.tables.shape)
        keys, values = (tape.lease(count * heads * page_bytes(width, "f32") + PAGES_SLACK) for _ in range(2))
        held = _Held(keys.block, values.block, heads, "f32", (keys, values))
        self._store(held, k, v, slots, count)
        return self._attend(q, held, reads, scale, 0.0)

    def _dense_reads(self, sizes: tuple[int, int, int], first: Array, last: Array) -> tuple[Reads, Array]:
        """What (rows, keys, parts) see of pages of their own, and the slots of keys; the same as last time for equals.

        An encoder asks once a layer.
        """
        known = self._dense
        if known is None or not (known[0].first is first and known[0].last is last and known[2] == sizes):
            rows, keys, parts = sizes
            pages, constant = -(-(keys // parts) // PAGE), self._ops.constant
            tables = constant(np.arange(parts * pages, dtype=np.int32).reshape(parts, pages))
            sequence = constant(np.repeat(np.arange(parts, dtype=np.int32), rows // parts))
            slots = np.arange(parts)[:, None] * pages * PAGE + np.arange(keys // parts)
            reads = Reads(tables, sequence, first, last)
            known = self._dense = reads, constant(slots.reshape(-1).astype(np.int32)), sizes
        return known[0], known[1]

    def _attend(self, q: Array, held: _Held, reads: Reads, scale: float, softcap: float) -> Array:
        ops, heads = self._ops, most(q.shape[1])
        group = heads // held.heads
        plan = self._plan(reads, held.heads, group, q.shape[0])
        out, partial = ops.new(q.shape), ops.new((_SLOTS, heads, q.width + 2))
        scratch, size = self._scratch_of(q.width, group)
        args = (
            place(q).address, place(q).row, place(out).address, place(out).row, held.keys.address,
            held.values.address, place(plan.tiles).address, place(reads.tables).address, place(reads.tables).row,
            place(reads.sequence).address, place(reads.first).address, place(reads.last).address, group, held.heads,
            q.width, float_bits(scale), float_bits(softcap), place(partial).address, scratch.block.address, size,
        )  # fmt: skip
        kernel = Kernel.of("attend", kind=held.kind, softcap=softcap > 0)
        sources = [q, plan.tiles, reads.tables, reads.sequence, reads.first, reads.last]
        blocks = [held.keys, held.values]
        ops.tape.emit(
            kernel, args, items=plan.items[:1], reads=[*sources, *blocks], writes=[out, partial],
            keep=(held, plan, scratch),
        )  # fmt: skip
        sums = (
            place(plan.merges).address, place(partial).address, place(out).address, place(out).row, heads, q.width,
        )  # fmt: skip
        ops.tape.emit(
            Kernel.of("merge_chunks"), sums, items=plan.items[1:], reads=[plan.merges], writes=[partial, out],
            keep=(plan,),
        )  # fmt: skip
        return out

    def _plan(self, reads: Reads, heads: int, group: int, rows: Size) -> _Plan:
        """The tiles of a step; made once for all layers that share `reads`."""
        known = self._plans.setdefault(reads, {})
        if (heads, group) not in known:
            ops = self._ops
            plan = _Plan(
                tiles=ops.new((most(rows) + _SLOTS, 4), "i32"), merges=ops.new((_SLOTS, 3), "i32"),
                items=np.zeros(2, np.int64),
            )  # fmt: skip
            count = ops.tape.cell(rows)
            address = count if isinstance(count, int) else int(count.ctypes.data)
            args = (
                address, place(reads.sequence).address, place(reads.first).address, place(reads.last).address,
                place(plan.tiles).address, place(plan.merges).address, int(plan.items.ctypes.data),
                int(plan.items.ctypes.data) + 8, max(1, QUERIES // group), heads,
                _TILES_A_THREAD * ops.tape.team.threads, _SLOTS,
            )  # fmt: skip
            sources = [reads.sequence, reads.first, reads.last]
            ops.tape.emit(
                Kernel.of("plan_reads"), args, items=1, reads=sources, writes=[plan.tiles, plan.merges],
                keep=(count, plan),
            )  # fmt: skip
            known[heads, group] = plan
        return known[heads, group]

    def _scratch_of(self, width: int, group: int) -> tuple[Lease, int]:
        """Memory that each thread of `attend` has to itself, and its size a thread."""
        size = -(-attention_scratch(width, group) // 64) * 64
        if size not in self._scratch:
            self._scratch[size] = self._ops.tape.lease(size * self._ops.tape.team.threads)
        return self._scratch[size], size

    def weights(self, q: Array, pages: Pages, layer: int, reads: Reads, scale: float, softcap: float) -> Array:
        """By the definition, on copies: inspection is rare."""
        reference, dense, there = self._by_definition(pages, layer, reads)
        query = reference.array(self._ops.numpy(q))
        return self._back(reference.attention_weights(query, dense, 0, there, scale=scale, softcap=softcap))

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


def _pool(pages: Pages) -> KvPages:
    assert isinstance(pages, KvPages), "pages of another device"
    return pages
