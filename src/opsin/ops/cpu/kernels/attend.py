"""Paged attention: softmax(q k) v over the keys that each row sees, without a score matrix in memory.

Keys lie transposed in a page ([width][PAGE]) and values as rows ([PAGE][width]), so that scores are vectors of
keys and results vectors of width: no sum runs across lanes. Keys are taken page by page with a running maximum
(Milakov and Gimelshein 2018), summed by CHUNK at fixed places of the sequence, and chunks are merged in order.
So a row's result depends neither on the rows beside it, nor on the threads, nor on where its pages lie.

Items are tiles (see `plan_reads`) times KV heads. A tile is some rows of one sequence: all its chunks, or one,
whose sums go to `partial` for `merge_chunks`.

Arguments: q, bytes a row of q, out, bytes a row of out, keys of the layer, values, table of tiles, page tables,
bytes a page table, sequence of rows, first, last, query heads a KV head, KV heads, width, scale (f32 bits), softcap,
partial, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from opsin.ops import CHUNK, PAGE
from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.layout import SHARED
from opsin.ops.cpu.simd import Simd

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
    SCALE,
) = (8 * i for i in range(16))
SOFTCAP, PARTIAL, SCRATCH, SCRATCH_BYTES = (8 * i for i in range(16, 20))
TILE_WORDS = 4  # first row, rows, chunk or -1, slot in `partial`
LOWEST = -(2.0**127)  # a float32: what is stored compares equal to it


def make(simd: Simd, kind: str, softcap: bool) -> Any:
    at, i32, splat, load, store, mul = simd.i64_at, simd.i32_at, simd.splat, simd.load_part, simd.store_part, simd.mul
    f32_at, put_f32, put_i32, lanes = simd.f32_at, simd.put_f32, simd.put_i32, simd.lanes
    visit = _visit(simd, kind, softcap)
    merge = merging(simd)

    @jit
    def load_queries(args: int, row: int, rows: int, head: int, to: int) -> None:
        """The tile's queries, scaled, one after another."""
        group, width = at(args + GROUP), at(args + WIDTH)
        factor = splat(f32_at(args + SCALE))
        for r in range(rows):
            for g in range(group):
                q = at(args + Q) + (row + r) * at(args + Q_ROW) + (head * group + g) * width * 4
                for i in range(0, width, lanes):
                    store(to + ((r * group + g) * width + i) * 4, mul(load(q + 4 * i, width - i), factor), width - i)

    @jit
    def clear(sums: int, state: int, queries: int, width: int) -> None:
        zero = splat(0.0)
        for i in range(0, queries * width, lanes):
            store(sums + 4 * i, zero, queries * width - i)
        for i in range(queries):
            put_f32(state + 8 * i, LOWEST)
            put_f32(state + 8 * i + 4, 0.0)

    @jit
    def write(args: int, row: int, rows: int, head: int, sums: int, state: int) -> None:
        """Divide by the sum of weights; a row that sees nothing gets zeros."""
        group, width = at(args + GROUP), at(args + WIDTH)
        for r in range(rows):
            for g in range(group):
                k = r * group + g
                weight = f32_at(state + 8 * k + 4)
                factor = splat(1.0 / weight if weight > 0.0 else 0.0)
                y = at(args + OUT) + (row + r) * at(args + OUT_ROW) + (head * group + g) * width * 4
                for i in range(0, width, lanes):
                    store(y + 4 * i, mul(load(sums + (k * width + i) * 4, width - i), factor), width - i)

    @jit
    def keep(args: int, slot: int, head: int, sums: int, state: int) -> None:
        """A chunk's sums, for `merge_chunks`: maximum, weight, then width values a query head."""
        group, width, heads = at(args + GROUP), at(args + WIDTH), at(args + HEADS)
        for g in range(group):
            to = at(args + PARTIAL) + ((slot * heads + head) * group + g) * (width + 2) * 4
            put_f32(to, f32_at(state + 8 * g))
            put_f32(to + 4, f32_at(state + 8 * g + 4))
            for i in range(0, width, lanes):
                store(to + 8 + 4 * i, load(sums + (g * width + i) * 4, width - i), width - i)

    @jit
    def tile(args: int, entry: int, head: int, thread: int) -> None:
        row, rows, only, slot = i32(entry), i32(entry + 4), i32(entry + 8), i32(entry + 12)
        group, width = at(args + GROUP), at(args + WIDTH)
        queries = rows * group
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        sums = scratch + 4 * queries * width
        whole = sums + 4 * queries * width
        state = whole + 4 * queries * width
        whole_state = state + 8 * queries
        ranges = whole_state + 8 * queries
        scores = ranges + 8 * queries
        load_queries(args, row, rows, head, scratch)
        low, high = i32(at(args + FIRST) + 4 * row), 0
        for r in range(rows):
            a, b = i32(at(args + FIRST) + 4 * (row + r)), i32(at(args + LAST) + 4 * (row + r))
            low, high = min(low, a), max(high, b)
            for g in range(group):
                put_i32(ranges + 8 * (r * group + g), a)
                put_i32(ranges + 8 * (r * group + g) + 4, b)
        begin, end = low // CHUNK, (high + CHUNK - 1) // CHUNK
        if only >= 0:
            begin, end = only, only + 1
        clear(whole, whole_state, queries, width)
        for chunk in range(begin, end):
            clear(sums, state, queries, width)
            for page in range(max(chunk * CHUNK, low) // PAGE, (min((chunk + 1) * CHUNK, high) + PAGE - 1) // PAGE):
                visit(args, row, head, page, queries, scratch, sums, state, ranges, scores, high)
            if only >= 0:
                keep(args, slot, head, sums, state)
                return
            for k in range(queries):
                merge(whole + 4 * k * width, whole_state + 8 * k, sums + 4 * k * width, state + 8 * k, width)
        write(args, row, rows, head, whole, whole_state)

    def attend(args: int, first: int, last: int, thread: int) -> int:
        heads = at(args + HEADS)
        for item in range(first, last):
            tile(args, at(args + TILES) + (item // heads) * TILE_WORDS * 4, item % heads, thread)
        return 0

    return attend


def merging(simd: Simd) -> Any:
    """Two softmax sums become one: `into` and its state (maximum, weight) take in `sums` and theirs."""
    f32_at, put_f32, splat, exp = simd.f32_at, simd.put_f32, simd.splat, simd.exp
    load, store, mul, fma, lanes, first = simd.load_part, simd.store_part, simd.mul, simd.fma, simd.lanes, simd.first
    fma1 = simd.fma1

    @jit
    def merge(into: int, into_state: int, sums: int, state: int, width: int) -> None:
        there, here = f32_at(into_state), f32_at(state)
        if f32_at(state + 4) == 0.0:
            return
        top = there if there >= here else here
        old, new = exp(splat(there - top)), exp(splat(here - top))
        for i in range(0, width, lanes):
            n = width - i
            store(into + 4 * i, fma(load(into + 4 * i, n), old, mul(load(sums + 4 * i, n), new)), n)
        weight = fma1(f32_at(into_state + 4), first(old), f32_at(state + 4) * first(new))
        put_f32(into_state, top)
        put_f32(into_state + 4, weight)

    return merge


def _visit(simd: Simd, kind: str, softcap: bool) -> Any:
    """One page for all queries of a tile, some at a time."""
    at, i32 = simd.i64_at, simd.i32_at
    few, one = (_page_of(simd, kind, softcap, tokens) for tokens in (4, 1))
    eight = 1 if kind == "q8_0" else 0
    element = {"f32": 4, "f16": 2, "q8_0": 1}[kind]

    @jit
    def visit(
        args: int, row: int, head: int, page: int, queries: int, q: int, sums: int, state: int, ranges: int,
        scores: int, high: int,
    ) -> None:  # fmt: skip
        width, heads = at(args + WIDTH), at(args + HEADS)
        sequence = i32(at(args + SEQUENCE) + 4 * row)
        place = i32(at(args + TABLES) + sequence * at(args + TABLE_BYTES) + 4 * page)
        size = width * PAGE * element + eight * 2 * (width // SHARED) * PAGE
        keys = at(args + KEYS) + (place * heads + head) * size
        values = at(args + VALUES) + (place * heads + head) * size
        start, end = page * PAGE, min(high, (page + 1) * PAGE)
        if queries == 1:
            one(args, keys, values, start, end, 0, 1, q, sums, state, ranges, scores)
            return
        for k in range(0, queries, 4):
            some = min(4, queries - k)
            seen = 0
            for j in range(k, k + some):
                if i32(ranges + 8 * j) < end and i32(ranges + 8 * j + 4) > start:
                    seen = 1
            if seen == 1:
                few(args, keys, values, start, end, k, some, q, sums, state, ranges, scores)

    return visit


def _page_of(simd: Simd, kind: str, softcap: bool, tokens: int) -> Any:
    """Scores, weights and sums of up to `tokens` queries and one page."""
    at, i32 = simd.i64_at, simd.i32_at
    score, add_values = _scores(simd, kind, tokens), _weighted(simd, kind, tokens)
    weigh = _weigh(simd, softcap)

    @jit
    def page_of(
        args: int, keys: int, values: int, start: int, end: int, k: int, some: int, q: int, sums: int, state: int,
        ranges: int, scores: int,
    ) -> None:  # fmt: skip
        width = at(args + WIDTH)
        score(keys, q + 4 * k * width, width, some, scores)
        for j in range(some):
            low = max(i32(ranges + 8 * (k + j)) - start, 0)
            high = min(i32(ranges + 8 * (k + j) + 4) - start, PAGE)
            weigh(args, scores + j * PAGE * 4, low, high, sums + 4 * (k + j) * width, state + 8 * (k + j), width)
        add_values(values, scores, width, some, end - start, sums + 4 * k * width)

    return page_of


def _scores(simd: Simd, kind: str, tokens: int) -> Any:
    vectors = PAGE // simd.lanes if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    zeros, store, wide = tile.zeros, tile.store, vectors * simd.lanes
    element = {"f32": 4, "f16": 2, "q8_0": 1}[kind]
    step, step8, eight = tile.step[kind if kind != "q8_0" else "f32"], tile.keys_step, kind == "q8_0"

    @jit
    def score(keys: int, q: int, width: int, some: int, scores: int) -> None:
        for part in range(0, PAGE, wide):
            acc = zeros()
            w, scales = keys + part * element, keys + width * PAGE + part * 2
            for i in range(width):
                if eight:
                    acc = step8(acc, w, scales + (i // SHARED) * PAGE * 2, q + 4 * i, 4 * width, some)
                else:
                    acc = step(acc, w, q + 4 * i, 4 * width, some)
                w += PAGE * element
            store(acc, scores + 4 * part, PAGE * 4, some, PAGE - part)

    return score


def _weigh(simd: Simd, softcap: bool) -> Any:
    """Scores to weights under the running maximum; earlier sums are scaled down to it."""
    f32_at, put_f32, splat, exp, lanes = simd.f32_at, simd.put_f32, simd.splat, simd.exp, simd.lanes
    load, store, load_part, store_part = simd.load, simd.store, simd.load_part, simd.store_part
    keep, maximum, peak, add, total = simd.keep_between, simd.quick_maximum, simd.quick_peak, simd.add, simd.sum
    sub, mul, div, zero, fma1, first = simd.sub, simd.mul, simd.div, simd.zero, simd.fma1, simd.first

    @jit
    def weigh(args: int, scores: int, low: int, high: int, sums: int, state: int, width: int) -> None:
        lowest = splat(LOWEST)
        top = lowest
        for i in range(0, PAGE, lanes):
            s = load(scores + 4 * i)
            if softcap:
                cap = splat(f32_at(args + SOFTCAP))
                e = exp(mul(div(s, cap), splat(2.0)))
                s = mul(cap, sub(splat(1.0), div(splat(2.0), add(e, splat(1.0)))))
            s = keep(s, lowest, low - i, high - i)
            store(scores + 4 * i, s)
            top = maximum(s, top)
        if low >= high:
            for i in range(0, PAGE, lanes):
                store(scores + 4 * i, zero())
            return
        before, here = f32_at(state), peak(top)
        now = here if here > before else before  # a NaN score makes its own weight NaN, and so the sum
        shift, acc = splat(now), zero()
        for i in range(0, PAGE, lanes):
            p = exp(sub(load(scores + 4 * i), shift))
            store(scores + 4 * i, p)
            acc = add(acc, p)
        fade = exp(splat(before - now))
        put_f32(state, now)
        put_f32(state + 4, fma1(f32_at(state + 4), first(fade), total(acc)))
        if now > before:
            for i in range(0, width, lanes):
                store_part(sums + 4 * i, mul(load_part(sums + 4 * i, width - i), fade), width - i)

    return weigh


def _weighted(simd: Simd, kind: str, tokens: int) -> Any:
    vectors = 4 if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    load, store, wide = tile.load, tile.store, vectors * simd.lanes
    element = {"f32": 4, "f16": 2, "q8_0": 1}[kind]
    step, step8, eight = tile.step[kind if kind != "q8_0" else "f32"], tile.values_step, kind == "q8_0"

    @jit
    def add_values(values: int, weights: int, width: int, some: int, keys: int, sums: int) -> None:
        for part in range(0, width, wide):
            acc = load(sums + 4 * part, 4 * width, some, width - part)
            w, scales = values + part * element, values + width * PAGE + (part // SHARED) * 2
            for key in range(keys):
                if eight:
                    acc = step8(acc, w, scales, weights + 4 * key, PAGE * 4, some)
                else:
                    acc = step(acc, w, weights + 4 * key, PAGE * 4, some)
                w += width * element
                scales += (width // SHARED) * 2
            store(acc, sums + 4 * part, 4 * width, some, width - part)

    return add_values
