"""Attention over pages: what the kernels `plan_reads`, `attend` and `merge_chunks` are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import Array, Pages, Reads, Size, most
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.kv import KvPages
from opsin.ops.cpu.layout import QUERIES, attention_scratch
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


class Attention:
    """The attention part of `Operations`."""

    def __init__(self, ops: Operations) -> None:
        self._ops = ops
        self._plans: WeakKeyDictionary[Reads, dict[tuple[int, int], _Plan]] = WeakKeyDictionary()
        self._scratch: dict[int, Lease] = {}

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

    def attend(self, q: Array, pages: Pages, layer: int, reads: Reads, scale: float, softcap: float) -> Array:
        pool, heads = _pool(pages), most(q.shape[1])
        if q.width != pool.width or heads % pool.heads:
            raise ModelError(f"attend: q is {q.shape}, the pages hold {pool.heads} x {pool.width}")
        ops, group = self._ops, heads // pool.heads
        plan = self._plan(reads, pool.heads, group, q.shape[0])
        out, partial = ops.new(q.shape), ops.new((_SLOTS, heads, q.width + 2))
        scratch, size = self._scratch_of(q.width, group)
        args = (
            place(q).address, place(q).row, place(out).address, place(out).row, pool.keys[layer].address,
            pool.values[layer].address, place(plan.tiles).address, place(reads.tables).address, place(reads.tables).row,
            place(reads.sequence).address, place(reads.first).address, place(reads.last).address, group, pool.heads,
            q.width, float_bits(scale), float_bits(softcap), place(partial).address, scratch.block.address, size,
        )  # fmt: skip
        kernel = Kernel.of("attend", kind=pool.kind, softcap=softcap > 0)
        sources = [q, plan.tiles, reads.tables, reads.sequence, reads.first, reads.last]
        blocks = [pool.keys[layer], pool.values[layer]]
        ops.tape.emit(
            kernel, args, items=plan.items[:1], reads=[*sources, *blocks], writes=[out, partial],
            keep=(pool, plan, scratch),
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
