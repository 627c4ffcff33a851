"""A chunk of keys for all queries of a tile: scores, weights, sums, block by block of PAGE keys.

All scores of the chunk come first, then their weights, then the sums of values: one maximum serves a chunk. Keys and
values of a block are laid out as float32 for panels, transposed keys [width][PAGE] and values [PAGE][padded], because
many queries read them; up to FEW queries read a page where it lies instead. Both take the same sums in the same
order, so a row gets the same bits either way. A query takes no value that it does not see: not even with weight 0,
which a NaN would survive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opsin.ops import CHUNK, PAGE
from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.kernels.softmax import LOWEST, STATE, weighing
from opsin.ops.cpu.panel import Panel, transpose
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import PANEL, SCORES, score_vectors
from opsin.ops.layout import SHARED, VALUE_BITS

FEW = 4  # queries that are not worth laying out keys and values for
ROW = 4 * SCORES  # bytes of a query's scores


def summing(
    simd: Simd, softcap: bool, keys_of: Any, values_of: Any, ahead: Any, score: Any, spread: Any, add_bias: Any = None
) -> Any:
    """The function of a chunk, PANEL queries at a time, or up to FEW where `few` says so.

    keys_of and values_of(args, row, head, block, base, padded, count, room, few) give a block's address, laid out in
    `room` where that is done; ahead(args, row, head, block, base, part, parts, which, few) fetches a part of a later
    block;
    score(keys, q, width, padded, some, scores, few); spread(values, weights, width, padded, some, low, high, sums,
    few); add_bias(args, row, head, query, start, low, high, scores) where something is added to scores.
    """
    i32, weigh = simd.i32_at, weighing(simd, softcap)
    f32_at, put_f32, biased = simd.f32_at, simd.put_f32, add_bias is not None

    @jit
    def common(ranges: int, k: int, some: int, start: int) -> tuple[int, int, int]:
        """What all of some queries see of a block, and whether any sees anything."""
        low, high, seen = 0, PAGE, 0
        for j in range(k, k + some):
            a, b = max(i32(ranges + 8 * j) - start, 0), min(i32(ranges + 8 * j + 4) - start, PAGE)
            low, high, seen = max(low, a), min(high, b), seen + (1 if a < b else 0)
        return low, high, seen

    @jit
    def scores_of(
        args: int, row: int, head: int, begin: int, end: int, base: int, queries: int, width: int, padded: int,
        keys_end: int, q: int, ranges: int, scores: int, room: int, few: bool,
    ) -> None:  # fmt: skip
        origin, most = begin * PAGE // CHUNK * CHUNK, FEW if few else PANEL
        for block in range(begin, end):
            start = block * PAGE
            keys = keys_of(args, row, head, block, base, padded, min(keys_end - start, PAGE), room, few)
            for k in range(0, queries, most):
                some = min(most, queries - k)
                ahead(args, row, head, min(block + 1, end - 1), base, k, queries, 0, few)
                if common(ranges, k, some, start)[2] > 0:
                    score(keys, q + 4 * k * padded, width, padded, some, scores + k * ROW + 4 * (start - origin), few)

    @jit
    def spread_row(
        values: int, ranges: int, start: int, low: int, high: int, width: int, padded: int, weights: int, sums: int,
        few: bool,
    ) -> None:  # fmt: skip
        """One query's share of low <= key < high."""
        a, b = max(i32(ranges) - start, low), min(i32(ranges + 4) - start, high)
        if a < b:
            spread(values, weights, width, padded, 1, a, b, sums, few)

    @jit
    def values_to(
        args: int, row: int, head: int, begin: int, end: int, base: int, queries: int, width: int, padded: int,
        keys_end: int, sums: int, ranges: int, scores: int, room: int, few: bool,
    ) -> None:  # fmt: skip
        origin, most = begin * PAGE // CHUNK * CHUNK, FEW if few else PANEL
        for block in range(begin, end):
            start = block * PAGE
            values = values_of(args, row, head, block, base, padded, min(keys_end - start, PAGE), room, few)
            for k in range(0, queries, most):
                some = min(most, queries - k)
                ahead(args, row, head, min(block + 1, end - 1), base, k, queries, 1, few)
                low, high, seen = common(ranges, k, some, start)
                if seen == 0:
                    continue
                # What all see is taken together, what some see one by one before and after: each in order of keys.
                if low >= high:
                    low, high = PAGE, PAGE
                weights, to = scores + k * ROW + 4 * (start - origin), sums + 4 * k * padded
                if low > 0:
                    for j in range(some):
                        part = weights + j * ROW, to + 4 * j * padded
                        spread_row(values, ranges + 8 * (k + j), start, 0, low, width, padded, part[0], part[1], few)
                if low < high:
                    spread(values, weights, width, padded, some, low, high, to, few)
                    if high < PAGE:
                        for j in range(some):
                            part, see = (weights + j * ROW, to + 4 * j * padded), ranges + 8 * (k + j)
                            spread_row(values, see, start, high, PAGE, width, padded, part[0], part[1], few)

    @jit
    def sum_chunk(
        args: int, cap: float, pull: float, row: int, head: int, begin: int, end: int, base: int, queries: int,
        width: int, padded: int, keys_end: int, q: int, sums: int, state: int, ranges: int, scratch: int, few: bool,
    ) -> None:  # fmt: skip
        """Blocks begin to end of one chunk; `scratch` holds the scores, then room for a block."""
        origin = begin * PAGE // CHUNK * CHUNK
        room = scratch + (queries + PANEL - 1) // PANEL * PANEL * ROW
        scores_of(
            args, row, head, begin, end, base, queries, width, padded, keys_end, q, ranges, scratch, room, few,
        )  # fmt: skip
        for j in range(queries):
            a, b = max(i32(ranges + 8 * j) - origin, 0), min(i32(ranges + 8 * j + 4) - origin, CHUNK)
            if a < b:
                if biased:
                    add_bias(args, row, head, j, origin, a, b, scratch + j * ROW)
                weigh(cap, pull, scratch + j * ROW, a, b, state + j * STATE)
                if biased and f32_at(state + j * STATE) == LOWEST:
                    put_f32(state + j * STATE + 4, 0.0)  # all was hidden
        values_to(
            args, row, head, begin, end, base, queries, width, padded, keys_end, sums, ranges, scratch, room, few,
        )  # fmt: skip

    return sum_chunk


def converting(simd: Simd, kind: str) -> tuple[Any, Any]:
    """to_keys(keys, width, to) and to_values(values, width, padded, to): a page of a cache, as float32."""
    if kind == "q4_0":
        return _converting_four(simd)
    eight, element = kind == "q8_0", VALUE_BITS[kind] // 8
    read = {"f32": simd.load, "f16": simd.load_f16, "q8_0": simd.load_i8}[kind]
    load_f16, f16_at, splat = simd.load_f16, simd.f16_at, simd.splat
    mul, store, lanes = simd.mul, simd.store, simd.lanes

    @jit
    def to_keys(keys: int, width: int, to: int) -> None:
        scales = keys + width * PAGE
        for i in range(width):
            for j in range(0, PAGE, lanes):
                v = read(keys + (i * PAGE + j) * element)
                if eight:
                    v = mul(v, load_f16(scales + ((i // SHARED) * PAGE + j) * 2))
                store(to + (i * PAGE + j) * 4, v)

    @jit
    def to_values(values: int, width: int, padded: int, to: int) -> None:
        scales = values + width * PAGE
        for key in range(PAGE):
            for i in range(0, width, lanes):
                v = read(values + (key * width + i) * element)
                if eight:
                    v = mul(v, splat(f16_at(scales + (key * (width // SHARED) + i // SHARED) * 2)))
                store(to + (key * padded + i) * 4, v)

    return to_keys, to_values


def _converting_four(simd: Simd) -> tuple[Any, Any]:
    load_i4, load_f16, f16_at, splat = simd.load_i4, simd.load_f16, simd.f16_at, simd.splat
    mul, store, lanes = simd.mul, simd.store, simd.lanes

    @jit
    def to_keys(keys: int, width: int, to: int) -> None:
        scales = keys + width * PAGE // 2
        for i in range(width):
            for j in range(0, PAGE, lanes):
                scale = load_f16(scales + ((i // SHARED) * PAGE + j) * 2)
                store(to + (i * PAGE + j) * 4, mul(load_i4(keys + i // 2 * PAGE + j, i % 2 * 4), scale))

    @jit
    def to_values(values: int, width: int, padded: int, to: int) -> None:
        scales = values + width * PAGE // 2
        for key in range(PAGE):
            for i in range(0, width, lanes):
                group = i // SHARED
                v = load_i4(values + key * width // 2 + group // 2 * SHARED + i % SHARED, group % 2 * 4)
                scale = f16_at(scales + (key * (width // SHARED) + group) * 2)
                store(to + (key * padded + i) * 4, mul(v, splat(scale)))

    return to_keys, to_values


def gathering(simd: Simd) -> tuple[Any, Any]:
    """to_keys(keys, bytes a row, count, width, to), to_values(values, bytes a row, count, width, padded, to)."""
    turn, load, store, lanes = transpose(simd), simd.load_part, simd.store, simd.lanes

    @jit
    def to_keys(keys: int, stride: int, count: int, width: int, to: int) -> None:
        for j in range(0, PAGE, lanes):
            start = min(j, count - 1)  # scores of keys that are not there are not looked at
            for i in range(0, width, lanes):
                source = keys + start * stride + 4 * i
                turn(source, stride, count - start, width - i, to + (i * PAGE + j) * 4, PAGE * 4)

    @jit
    def to_values(values: int, stride: int, count: int, width: int, padded: int, to: int) -> None:
        for key in range(count):
            for i in range(0, width, lanes):
                store(to + (key * padded + i) * 4, load(values + key * stride + 4 * i, width - i))

    return to_keys, to_values


def products(simd: Simd, kind: str, vectors: int) -> tuple[Any, Any]:
    """score and spread: for PANEL queries and blocks that are laid out, or for up to FEW and pages as they lie."""
    panel_score, panel_spread = _panels(simd, vectors)

    @jit
    def dense_score(keys: int, q: int, width: int, padded: int, some: int, scores: int, few: bool) -> None:
        panel_score(keys, q, width, padded, scores)

    @jit
    def dense_spread(
        values: int, weights: int, width: int, padded: int, some: int, low: int, high: int, sums: int, few: bool
    ) -> None:
        panel_spread(values, weights, padded, some, low, high, sums)

    if kind == "dense":
        return dense_score, dense_spread
    score_one, score_some = (_scores(simd, kind, n) for n in (1, FEW))
    spread_one, spread_some = (_weighted(simd, kind, n) for n in (1, FEW))

    @jit
    def score(keys: int, q: int, width: int, padded: int, some: int, scores: int, few: bool) -> None:
        if not few:
            panel_score(keys, q, width, padded, scores)
        elif some == 1:
            score_one(keys, q, width, padded, 1, scores)
        else:
            score_some(keys, q, width, padded, some, scores)

    @jit
    def spread(
        values: int, weights: int, width: int, padded: int, some: int, low: int, high: int, sums: int, few: bool
    ) -> None:
        if not few:
            panel_spread(values, weights, padded, some, low, high, sums)
        elif some == 1:
            spread_one(values, weights, width, padded, 1, low, high, sums)
        else:
            spread_some(values, weights, width, padded, some, low, high, sums)

    return score, spread


def _panels(simd: Simd, vectors: int) -> tuple[Any, Any]:
    """score and spread for PANEL queries and blocks that are laid out."""
    registers, wide = simd.isa.registers, score_vectors(simd.isa.registers) * simd.lanes
    panel = Panel(simd, vectors=wide // simd.lanes, rows=PANEL)
    rows = PANEL if (PANEL + 1) * vectors < registers else PANEL // 2
    zeros, step, store = panel.zeros, panel.step, panel.store
    many = _spread(Panel(simd, vectors=vectors, rows=rows), PANEL)
    one = _spread(Panel(simd, vectors=vectors, rows=1), 1)

    @jit
    def score(keys: int, q: int, width: int, padded: int, scores: int) -> None:
        for start in range(0, PAGE, wide):
            acc, w, x = zeros(), keys + 4 * start, q
            for _ in range(width):
                acc = step(acc, w, x, 4 * padded)
                w += 4 * PAGE
                x += 4
            store(acc, scores + 4 * start, ROW)

    @jit
    def spread(values: int, weights: int, padded: int, some: int, low: int, high: int, sums: int) -> None:
        if some == 1:
            one(values, weights, padded, low, high, sums)
        else:
            many(values, weights, padded, low, high, sums)

    return score, spread


def _spread(panel: Panel, queries: int) -> Callable[..., None]:
    """Weights times values low <= key < high onto the sums of so many queries."""
    load, step, store, wide, rows = panel.load, panel.step, panel.store, panel.wide, panel.rows

    @jit
    def spread(values: int, weights: int, padded: int, low: int, high: int, sums: int) -> None:
        for start in range(0, padded, wide):
            for k in range(0, queries, rows):
                y = sums + 4 * (k * padded + start)
                acc, w, x = load(y, 4 * padded), values + 4 * (low * padded + start), weights + k * ROW + 4 * low
                for _ in range(high - low):
                    acc = step(acc, w, x, ROW)
                    w += 4 * padded
                    x += 4
                store(acc, y, 4 * padded)

    return spread


def _scores(simd: Simd, kind: str, tokens: int) -> Any:
    if kind == "q4_0":
        return _scores_of_four(simd, tokens)
    vectors = PAGE // simd.lanes if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    zeros, store, wide, element = tile.zeros, tile.store, vectors * simd.lanes, VALUE_BITS[kind] // 8
    step, step8, eight = tile.step[kind if kind != "q8_0" else "f32"], tile.keys_step, kind == "q8_0"

    @jit
    def score(keys: int, q: int, width: int, padded: int, some: int, scores: int) -> None:
        for part in range(0, PAGE, wide):
            acc = zeros()
            w, scales = keys + part * element, keys + width * PAGE + part * 2
            for i in range(width):
                if eight:
                    acc = step8(acc, w, scales + (i // SHARED) * PAGE * 2, q + 4 * i, 4 * padded, some)
                else:
                    acc = step(acc, w, q + 4 * i, 4 * padded, some)
                w += PAGE * element
            store(acc, scores + 4 * part, ROW, some, PAGE - part)

    return score


def _scores_of_four(simd: Simd, tokens: int) -> Any:
    vectors = PAGE // simd.lanes if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    zeros, store, step, wide = tile.zeros, tile.store, tile.keys_step4, vectors * simd.lanes

    @jit
    def score(keys: int, q: int, width: int, padded: int, some: int, scores: int) -> None:
        for part in range(0, PAGE, wide):
            acc = zeros()
            w, scales = keys + part, keys + width * PAGE // 2 + part * 2
            for i in range(0, width, 2):
                scale = scales + (i // SHARED) * PAGE * 2
                acc = step(acc, w, 0, scale, q + 4 * i, 4 * padded, some)
                acc = step(acc, w, 4, scale, q + 4 * i + 4, 4 * padded, some)
                w += PAGE
            store(acc, scores + 4 * part, ROW, some, PAGE - part)

    return score


def _weighted(simd: Simd, kind: str, tokens: int) -> Any:
    if kind == "q4_0":
        return _weighted_of_four(simd, tokens)
    vectors = 4 if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    load, store, wide, element = tile.load, tile.store, vectors * simd.lanes, VALUE_BITS[kind] // 8
    step, step8, eight = tile.step[kind if kind != "q8_0" else "f32"], tile.values_step, kind == "q8_0"

    @jit
    def add_values(
        values: int, weights: int, width: int, padded: int, some: int, low: int, high: int, sums: int
    ) -> None:
        for part in range(0, width, wide):
            acc = load(sums + 4 * part, 4 * padded, some, width - part)
            w = values + (low * width + part) * element
            scales = values + width * PAGE + (low * (width // SHARED) + part // SHARED) * 2
            for key in range(low, high):
                if eight:
                    acc = step8(acc, w, scales, weights + 4 * key, ROW, some)
                else:
                    acc = step(acc, w, weights + 4 * key, ROW, some)
                w += width * element
                scales += (width // SHARED) * 2
            store(acc, sums + 4 * part, 4 * padded, some, width - part)

    return add_values


def _weighted_of_four(simd: Simd, tokens: int) -> Any:
    vectors = 4 if simd.lanes == 16 else 2
    tile = Dots(simd, vectors=vectors, tokens=tokens)
    load, store, step, wide = tile.load, tile.store, tile.values_step4, vectors * simd.lanes

    @jit
    def add_values(
        values: int, weights: int, width: int, padded: int, some: int, low: int, high: int, sums: int
    ) -> None:
        for part in range(0, width, wide):
            acc = load(sums + 4 * part, 4 * padded, some, width - part)
            w, scales = values + low * width // 2, values + width * PAGE // 2 + low * (width // SHARED) * 2
            for key in range(low, high):
                acc = step(acc, w, part, scales, weights + 4 * key, ROW, some)
                w += width // 2
                scales += (width // SHARED) * 2
            store(acc, sums + 4 * part, 4 * padded, some, width - part)

    return add_values
