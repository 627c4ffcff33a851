"""Attention: softmax(q k) v over the keys that each row sees, without a score matrix in memory.

Keys and values lie in pages of a cache, keys transposed ([width][PAGE]) and values as rows ([PAGE][width]), or they
are rows of a matrix (kind "dense", for encoders). Behind numbers of 8 and 4 bits stand f16 scales, one for SHARED
values of a head: of keys [width / SHARED][PAGE], of values [PAGE][width / SHARED]. Numbers of 4 bits are biased by 8,
two in a byte, the first one low: 2 i and 2 i + 1 of a key, and those of a value that are SHARED apart. So no two rows
share a byte, which threads may write at once.

Scores are vectors of keys and results vectors of width: no sum runs across lanes. Keys are taken block by block of
PAGE, summed by CHUNK, and chunks are merged in order. Blocks and chunks begin at fixed places of a sequence, or where
the keys of a row begin (dense). So a row's result depends neither on the rows beside it, nor on the threads, nor on
where its pages lie.

Items are tiles (see `plan_reads`) times KV heads. A tile is some rows of one sequence, or rows that see the same
keys (dense): all their chunks, or one, whose sums go to `partial` for `merge_chunks`.

Arguments: q, bytes a row of q, out, bytes a row of out, keys of the layer, values, table of tiles, page tables (dense:
bytes a row of keys), bytes a page table (dense: bytes a row of values), sequence of rows, first, last, query heads a
KV head, KV heads, width, factor of queries (f32 bits), cap and pull of scores, partial, scratch, bytes of scratch a
thread; dense: rows of queries and of keys that make a part, from whose beginning first and last count; biased: what is
added to scores, bytes a row of it, bytes a query head (0: all have the same), rows after which it begins again, its
factor (f32 bits); with sinks: the score of each query head's; with alibi: the slope of each query head, the place of
each row (no bias is read).
"""

from __future__ import annotations

from typing import Any

from opsin.ops import CHUNK, PAGE
from opsin.ops.cpu.kernels.blocks import FEW, converting, gathering, products, summing
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.kernels.softmax import LOG2_E, STATE, clearing, merging, sharing
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import PANEL
from opsin.ops.layout import SCALED, SHARED, VALUE_BITS

(
    Q,
    Q_ROW,
    OUT,
    OUT_ROW,
    KEYS,
    VALUES,
    TILES,
    TABLES,
    TABLE_BYTES,
    SEQUENCE,
    FIRST,
    LAST,
    GROUP,
    HEADS,
    WIDTH,
    FACTOR,
) = (8 * i for i in range(16))
CAP, PULL, PARTIAL, SCRATCH, SCRATCH_BYTES, PART_ROWS, PART_KEYS = (8 * i for i in range(16, 23))
BIAS, BIAS_ROW, BIAS_HEAD, BIAS_ROWS, BIAS_FACTOR, SINKS, SLOPES, PLACES = (8 * i for i in range(23, 31))
K_ROW, V_ROW = TABLES, TABLE_BYTES
BY_HAND = True  # no loop gains by LLVM's own unrolling and vectors, which take half its time
TILE_WORDS = 4  # first row, rows, chunk or -1, slot in `partial`


def make(
    simd: Simd, kind: str, softcap: bool, vectors: int, biased: bool = False, sinks: bool = False, alibi: bool = False
) -> Any:
    at, i32, put_i32, lanes = simd.i64_at, simd.i32_at, simd.put_i32, simd.lanes
    load_queries, write, keep = _rows(simd, sinks)
    added = _sloping(simd) if alibi else _biasing(simd) if biased else None
    clear, merge, sum_chunk = clearing(simd), merging(simd), _sum_chunk(simd, kind, softcap, vectors, added)
    wide, dense = vectors * lanes, kind == "dense"

    @jit
    def tile(args: int, entry: int, head: int, thread: int) -> None:
        row, rows, only, slot = i32(entry), i32(entry + 4), i32(entry + 8), i32(entry + 12)
        group, width = at(args + GROUP), at(args + WIDTH)
        padded, queries = (width + wide - 1) // wide * wide, rows * group
        some = (queries + PANEL - 1) // PANEL * PANEL
        q = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        sums = q + 4 * some * padded
        whole = sums + 4 * some * padded
        state = whole + 4 * some * padded
        whole_state = state + STATE * some
        ranges = whole_state + STATE * some
        scratch = (ranges + 8 * some + 63) // 64 * 64
        load_queries(args, row, rows, head, q, padded)
        base = i32(at(args + FIRST) + 4 * row) if dense else 0
        origin = base + row // at(args + PART_ROWS) * at(args + PART_KEYS) if dense else 0
        low, high = i32(at(args + FIRST) + 4 * row) - base, 0
        for r in range(rows):
            a, b = i32(at(args + FIRST) + 4 * (row + r)) - base, i32(at(args + LAST) + 4 * (row + r)) - base
            low, high = min(low, a), max(high, b)
            for g in range(group):
                put_i32(ranges + 8 * (r * group + g), a)
                put_i32(ranges + 8 * (r * group + g) + 4, b)
        # What nobody sees is one chunk of nothing.
        begin, end = low // CHUNK, max((high + CHUNK - 1) // CHUNK, low // CHUNK + 1)
        if only >= 0:
            begin, end = only, only + 1
        if end - begin > 1:
            clear(whole, whole_state, queries, padded)
        for chunk in range(begin, end):
            clear(sums, state, queries, padded)
            first, stop = max(chunk * CHUNK, low) // PAGE, (min((chunk + 1) * CHUNK, high) + PAGE - 1) // PAGE
            sum_chunk(args, row, head, first, stop, origin, queries, padded, high, q, sums, state, ranges, scratch)
            if only >= 0:
                keep(args, slot, head, sums, state, padded)
                return
            if end - begin > 1:
                for k in range(queries):
                    to, place = whole + 4 * k * padded, whole_state + STATE * k
                    merge(to, place, sums + 4 * k * padded, state + STATE * k, width)
        if end - begin > 1:
            write(args, row, rows, head, whole, whole_state, padded)
        else:
            write(args, row, rows, head, sums, state, padded)

    def attend(args: int, first: int, last: int, thread: int) -> int:
        heads = at(args + HEADS)
        for item in range(first, last):
            tile(args, at(args + TILES) + (item // heads) * TILE_WORDS * 4, item % heads, thread)
        return 0

    return attend


def _rows(simd: Simd, sinks: bool) -> tuple[Any, Any, Any]:
    """Queries of a tile into scratch, results out of it."""
    at, f32_at, put_f32, splat, mul = simd.i64_at, simd.f32_at, simd.put_f32, simd.splat, simd.mul
    load, store, lanes, share = simd.load_part, simd.store_part, simd.lanes, sharing(simd, sinks)

    @jit
    def load_queries(args: int, row: int, rows: int, head: int, to: int, padded: int) -> None:
        """The tile's queries times the factor, one after another."""
        group, width = at(args + GROUP), at(args + WIDTH)
        factor = splat(f32_at(args + FACTOR))
        for r in range(rows):
            for g in range(group):
                q = at(args + Q) + (row + r) * at(args + Q_ROW) + (head * group + g) * width * 4
                y = to + (r * group + g) * padded * 4
                for i in range(0, width, lanes):
                    store(y + 4 * i, mul(load(q + 4 * i, width - i), factor), padded - i)

    @jit
    def write(args: int, row: int, rows: int, head: int, sums: int, state: int, padded: int) -> None:
        """Divide by the sum of weights; a row that sees nothing gets zeros."""
        group, width = at(args + GROUP), at(args + WIDTH)
        for r in range(rows):
            for g in range(group):
                k = r * group + g
                factor = splat(share(state + STATE * k, at(args + SINKS) if sinks else 0, head * group + g))
                y = at(args + OUT) + (row + r) * at(args + OUT_ROW) + (head * group + g) * width * 4
                for i in range(0, width, lanes):
                    store(y + 4 * i, mul(load(sums + (k * padded + i) * 4, width - i), factor), width - i)

    @jit
    def keep(args: int, slot: int, head: int, sums: int, state: int, padded: int) -> None:
        """A chunk's sums, for `merge_chunks`: maximum, weight, then width values a query head."""
        group, width, heads = at(args + GROUP), at(args + WIDTH), at(args + HEADS)
        for g in range(group):
            to = at(args + PARTIAL) + ((slot * heads + head) * group + g) * (width + 2) * 4
            put_f32(to, f32_at(state + STATE * g))
            put_f32(to + 4, f32_at(state + STATE * g + 4))
            for i in range(0, width, lanes):
                store(to + 8 + 4 * i, load(sums + (g * padded + i) * 4, width - i), width - i)

    return load_queries, write, keep


def _sum_chunk(simd: Simd, kind: str, softcap: bool, vectors: int, added: Any) -> Any:
    """Blocks of a chunk for all queries of a tile."""
    at, f32_at, dense = simd.i64_at, simd.f32_at, kind == "dense"
    blocks = _gathered(simd) if dense else _paged(simd, kind)
    take = summing(simd, softcap, *blocks, *products(simd, kind, vectors), added)

    @jit
    def sum_chunk(
        args: int, row: int, head: int, begin: int, end: int, base: int, queries: int, padded: int, keys_end: int,
        q: int, sums: int, state: int, ranges: int, scratch: int,
    ) -> None:  # fmt: skip
        width, cap, pull, few = at(args + WIDTH), f32_at(args + CAP), f32_at(args + PULL), queries <= FEW and not dense
        take(
            args, cap, pull, row, head, begin, end, base, queries, width, padded, keys_end, q, sums, state, ranges,
            scratch, few,
        )  # fmt: skip

    return sum_chunk


def _biasing(simd: Simd) -> Any:
    """add_bias(args, row, head, query, start, low, high, scores): keys are counted from `start` behind the first."""
    at, i32, load, load_part, store = simd.i64_at, simd.i32_at, simd.load, simd.load_part, simd.store
    fma, splat, f32_at, lanes = simd.fma, simd.splat, simd.f32_at, simd.lanes

    @jit
    def add_bias(args: int, row: int, head: int, query: int, start: int, low: int, high: int, scores: int) -> None:
        group = at(args + GROUP)
        bias = at(args + BIAS) + (row + query // group) % at(args + BIAS_ROWS) * at(args + BIAS_ROW)
        bias += (head * group + query % group) * at(args + BIAS_HEAD) + 4 * (i32(at(args + FIRST) + 4 * row) + start)
        factor = splat(f32_at(args + BIAS_FACTOR))
        for i in range(low, high, lanes):
            store(scores + 4 * i, fma(load_part(bias + 4 * i, high - i), factor, load(scores + 4 * i)))

    return add_bias


def _sloping(simd: Simd) -> Any:
    """As `_biasing`, of keys in pages: what the distance from a row takes from its scores."""
    at, i32, load, store, f32_at, lanes = simd.i64_at, simd.i32_at, simd.load, simd.store, simd.f32_at, simd.lanes
    fma, splat, magnitude, counted = simd.fma, simd.splat, simd.abs, simd.counted

    @jit
    def add_slope(args: int, row: int, head: int, query: int, start: int, low: int, high: int, scores: int) -> None:
        group = at(args + GROUP)
        slope = f32_at(at(args + SLOPES) + 4 * (head * group + query % group))
        ahead, factor = start - i32(at(args + PLACES) + 4 * (row + query // group)), splat(-LOG2_E * slope)
        for i in range(low, high, lanes):
            store(scores + 4 * i, fma(magnitude(counted(ahead + i)), factor, load(scores + 4 * i)))

    return add_slope


def _paged(simd: Simd, kind: str) -> tuple[Any, Any, Any]:
    """Pages of a sequence, for one KV head: as they lie for few queries, otherwise as float32 in `room`."""
    at, i32, prefetch, (to_keys, to_values) = simd.i64_at, simd.i32_at, simd.prefetch, converting(simd, kind)
    scaled, bits = 1 if kind in SCALED else 0, VALUE_BITS[kind]

    @jit
    def place(args: int, row: int, head: int, block: int) -> tuple[int, int]:
        """Where a page lies behind the first one, and its bytes."""
        sequence, width = i32(at(args + SEQUENCE) + 4 * row), at(args + WIDTH)
        size = width * PAGE * bits // 8 + scaled * 2 * (width // SHARED) * PAGE
        page = i32(at(args + TABLES) + sequence * at(args + TABLE_BYTES) + 4 * block)
        return (page * at(args + HEADS) + head) * size, size

    @jit
    def keys_of(
        args: int, row: int, head: int, block: int, base: int, padded: int, count: int, room: int, few: bool
    ) -> int:
        page = at(args + KEYS) + place(args, row, head, block)[0]
        if few:
            return page
        to_keys(page, at(args + WIDTH), room)
        return room

    @jit
    def values_of(
        args: int, row: int, head: int, block: int, base: int, padded: int, count: int, room: int, few: bool
    ) -> int:
        page = at(args + VALUES) + place(args, row, head, block)[0]
        if few:
            return page
        to_values(page, at(args + WIDTH), padded, room)
        return room

    @jit
    def ahead(
        args: int, row: int, head: int, block: int, base: int, part: int, parts: int, which: int, few: bool
    ) -> None:
        """Part of a page, while other queries are computed: it lies beyond the caches, more or less."""
        if few:
            return
        start, whole = place(args, row, head, block)
        start += at(args + (VALUES if which else KEYS))
        for line in range(part * whole // parts, min(part + PANEL, parts) * whole // parts, 64):
            prefetch(start + line)

    return keys_of, values_of, ahead


def _gathered(simd: Simd) -> tuple[Any, Any, Any]:
    """Rows of a matrix from `base` on, in `room`."""
    at, prefetch, (to_keys, to_values) = simd.i64_at, simd.prefetch, gathering(simd)

    @jit
    def keys_of(
        args: int, row: int, head: int, block: int, base: int, padded: int, count: int, room: int, few: bool
    ) -> int:
        width, stride = at(args + WIDTH), at(args + K_ROW)
        to_keys(at(args + KEYS) + (base + block * PAGE) * stride + 4 * head * width, stride, count, width, room)
        return room

    @jit
    def values_of(
        args: int, row: int, head: int, block: int, base: int, padded: int, count: int, room: int, few: bool
    ) -> int:
        width, stride = at(args + WIDTH), at(args + V_ROW)
        source = at(args + VALUES) + (base + block * PAGE) * stride + 4 * head * width
        to_values(source, stride, count, width, padded, room)
        return room

    @jit
    def ahead(
        args: int, row: int, head: int, block: int, base: int, part: int, parts: int, which: int, few: bool
    ) -> None:
        """Some rows of a block, while other queries are computed: each lies where the CPU does not expect it."""
        stride, size = at(args + (V_ROW if which else K_ROW)), 4 * at(args + WIDTH)
        start = at(args + (VALUES if which else KEYS)) + (base + block * PAGE) * stride + head * size
        for key in range(part * PAGE // parts, min(part + PANEL, parts) * PAGE // parts):
            for line in range(start + key * stride, start + key * stride + size, 64):
                prefetch(line)

    return keys_of, values_of, ahead
