"""Attention without a cache by products of integers: `attend_dense` where it may be as coarse as 8 or 16 bits.

Queries are lanes of vectors, a panel of `int_panel` side by side; a word (four bytes, or two integers of 16 bits) of
a key or of a column of values at a time meets them all. So no sum runs across lanes, sums are exact, and a query's
result depends on itself and on the keys that it sees alone. An item is a tile of rows that see the same keys (see
`plan_reads`) times a query head.

Queries, times the factor, become integers with a scale each. So do keys, in 8 bits biased by 128, less the mean of
those that are seen, which changes no softmax (Zhang et al. 2024, arXiv 2410.02367); in 16 bits both are no longer
than sums can hold (see `quantise_int16`). Keys are taken in blocks of PAGE, from the first one that is seen: weights
are 0 to 255, or to 8191, beside the block's largest, so that a broad tail beside a peak is lost in one block at most,
values are integers of 8 bits, or of 13, with a scale a column of the block. Results are divided by the sum of the
rounded weights.

A thread's scratch, where a word holds `per` integers: of each query of a tile its largest score so far, the sum of its
weights, its scale and -128 times the sum of its bytes; of a panel what old and new sums are multiplied by and the
block's largest scores, scores [PAGE][panel], weights [PAGE / per][panel][per]; scales of keys; their mean; queries
[width / per][panel][per] and sums [width][panel] of each panel; keys [INT_KEYS][width], values [INT_KEYS /
per][width][per], scales of values [INT_KEYS / PAGE][width].

Arguments: q, bytes a row of q, out, bytes a row of out, k, bytes a row of k, v, bytes a row of v, table of tiles,
first, last, query heads, query heads a KV head, width, factor of queries (f32 bits), rows of queries and of keys that
make a part, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops import PAGE
from opsin.ops.cpu.kernels.attend_rounding import TOGETHER, quantising, rounded, store_words
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.kernels.softmax import LOWEST
from opsin.ops.cpu.panel import transpose
from opsin.ops.cpu.simd import F32, I8, I32, I64, Simd, Tile, call, constant, exp2, fma, load, operation, splat, store
from opsin.ops.cpu.tiles import INT_KEYS, INT_ROWS, int_panel, int_parts

(Q, Q_ROW, OUT, OUT_ROW, K, K_ROW, V, V_ROW, TILES, FIRST, LAST, HEADS, GROUP, WIDTH, FACTOR, PART_ROWS, PART_KEYS,
 SCRATCH, SCRATCH_BYTES) = (8 * i for i in range(19))  # fmt: skip
BY_HAND = True  # its loops are written out
_WEIGHTS = 8191.0  # the largest of 16 bits: PAGE products with values fit 32


def make(simd: Simd, bits: int) -> Any:
    at, i32, f32_at, lanes, wide, size = (
        simd.i64_at, simd.i32_at, simd.f32_at, simd.lanes, int_panel(simd.lanes), bits // 8,
    )  # fmt: skip
    centre, quantise_keys, quantise_values, quantise_queries = quantising(simd, wide, bits)
    take, write = _block(simd, wide, bits), _write(simd, wide)
    zero, store, store_part = simd.zero, simd.store, simd.store_part
    _, scales_at, mean_at = int_parts(lanes)

    @jit
    def nothing(args: int, row: int, rows: int, head: int) -> None:
        width = at(args + WIDTH)
        for r in range(row, row + rows):
            y = at(args + OUT) + r * at(args + OUT_ROW) + head * width * 4
            for i in range(0, width, lanes):
                store_part(y + 4 * i, zero(), width - i)

    @jit
    def tile(args: int, row: int, rows: int, head: int, scratch: int) -> None:
        first = i32(at(args + FIRST) + 4 * row)
        count = i32(at(args + LAST) + 4 * row) - first
        if count <= 0:
            nothing(args, row, rows, head)
            return
        width = at(args + WIDTH)
        padded = (width + lanes - 1) // lanes * lanes
        key = first + row // at(args + PART_ROWS) * at(args + PART_KEYS)
        part = head // at(args + GROUP) * width * 4
        k, v = at(args + K) + key * at(args + K_ROW) + part, at(args + V) + key * at(args + V_ROW) + part
        mean = scratch + mean_at
        q = mean + 4 * padded
        sums = q + size * INT_ROWS * padded
        keys = sums + 4 * INT_ROWS * padded
        values = keys + size * INT_KEYS * padded
        shares = values + size * INT_KEYS * padded
        centre(k, at(args + K_ROW), count, width, mean)
        for p in range(0, rows, wide):
            quantise_queries(
                at(args + Q) + (row + p) * at(args + Q_ROW) + head * width * 4, at(args + Q_ROW), min(rows - p, wide),
                width, f32_at(args + FACTOR), q + size * p * padded, scratch + 4 * p, keys,
            )  # fmt: skip
            for i in range(0, wide * padded, lanes):
                store(sums + 4 * (p * padded + i), zero())
        for start in range(0, count, INT_KEYS):
            some = min(count - start, INT_KEYS)
            for b in range(0, some, PAGE):
                n, scales = min(some - b, PAGE), scratch + scales_at + 4 * b
                flaw = quantise_keys(
                    k + (start + b) * at(args + K_ROW),
                    at(args + K_ROW),
                    n,
                    width,
                    mean,
                    keys + size * b * padded,
                    scales,
                )
                quantise_values(
                    v + (start + b) * at(args + V_ROW), at(args + V_ROW), n, width, flaw, values + size * b * padded,
                    shares + 4 * (b // PAGE) * padded,
                )  # fmt: skip
            for p in range(0, rows, wide):
                for b in range(0, some, PAGE):
                    take(
                        q + size * p * padded, keys + size * b * padded, values + size * b * padded,
                        scratch + scales_at + 4 * b,
                        shares + 4 * (b // PAGE) * padded, min(some - b, PAGE), width, padded, scratch + 4 * p,
                        scratch, sums + 4 * p * padded,
                    )  # fmt: skip
        for p in range(0, rows, wide):
            write(args, row + p, min(rows - p, wide), head, sums + 4 * p * padded, scratch + 4 * p, scratch)

    def attend_integers(args: int, first: int, last: int, thread: int) -> int:
        heads, scratch = at(args + HEADS), at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for item in range(first, last):
            entry = at(args + TILES) + item // heads * 16
            tile(args, i32(entry), i32(entry + 4), item % heads, scratch)
        return 0

    return attend_integers


class _Panel:
    """Tiles of TOGETHER numbers for each of a panel's queries."""

    def __init__(self, simd: Simd, wide: int, bits: int) -> None:
        self.simd, self.lanes, self.vectors = simd, simd.lanes, wide // simd.lanes
        self.bits, self.row = bits, 4 * wide
        self.words, self.bytes = simd.I.ir, ir.VectorType(I8, 4 * simd.lanes)
        self.I = Tile(simd.I, self.vectors * TOGETHER)
        self.M = Tile(simd.F, self.vectors)
        i64, F = types.int64, simd.F
        self.lowest = operation(self.M, (), lambda b: ir.Constant(self.M.ir, [constant(F.ir, LOWEST)] * self.vectors))
        self.zeros = operation(self.I, (), lambda b: ir.Constant(self.I.ir, [constant(self.words, 0)] * self.I.n))
        self.begin = operation(self.I, (i64,), self._begin)
        self.score = operation(self.I, (self.I, i64, i64, i64), self._score)
        self.scores = operation(self.M, (self.M, self.I, i64, i64), self._scores)
        self.put = operation(types.void, (self.M, i64), self._put)
        self.weigh = operation(simd.I, (simd.I, i64, F, F, i64), self._weigh)
        self.weigh_part = operation(simd.I, (simd.I, i64, F, F, i64, i64), self._weigh)
        self.none = operation(simd.I, (), lambda b: constant(self.words, 0))
        self.floats = operation(F, (simd.I,), lambda b, x: b.sitofp(x, F.ir))
        self.spread = operation(self.I, (self.I, i64, i64), self._spread)
        self.add = operation(types.void, (self.I, i64, i64, i64), self._add)

    def _dot(self, b: Any, acc: Any, x: Any, y: Any) -> Any:
        """acc + four unsigned bytes of x times four signed ones of y, or two integers of 16 bits times two."""
        if self.bits == 16:
            return call(b, f"llvm.x86.avx512.vpdpwssd.{32 * self.lanes}", self.words, (acc, x, y))
        arguments = (acc, b.bitcast(x, self.bytes), b.bitcast(y, self.bytes))
        return call(b, f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", self.words, arguments)

    def _vector(self, b: Any, p: Any, v: int, kind: Any) -> Any:
        return load(b, b.add(p, I64(4 * self.lanes * v)), kind)

    def _begin(self, b: Any, p: Any) -> Any:
        """What undoes that keys are biased."""
        acc = ir.Constant(self.I.ir, ir.Undefined)
        for j in range(TOGETHER):
            for v in range(self.vectors):
                acc = b.insert_value(acc, self._vector(b, p, v, self.words), j * self.vectors + v)
        return acc

    def _score(self, b: Any, acc: Any, q: Any, k: Any, stride: Any) -> Any:
        """A word of each query times one of TOGETHER keys, which are `stride` apart."""
        queries = [self._vector(b, q, v, self.words) for v in range(self.vectors)]
        for j in range(TOGETHER):
            key = splat(b, load(b, b.add(k, b.mul(stride, I64(j))), I32), self.lanes)
            for v, query in enumerate(queries):
                i = j * self.vectors + v
                acc = b.insert_value(acc, self._dot(b, b.extract_value(acc, i), key, query), i)
        return acc

    def _scores(self, b: Any, most: Any, acc: Any, scales: Any, to: Any) -> Any:
        """Write sums times scales; the largest of `most` and them."""
        kind = self.simd.F.ir
        for j in range(TOGETHER):
            scale = splat(b, load(b, b.add(scales, I64(4 * j)), F32), self.lanes)
            for v in range(self.vectors):
                i = j * self.vectors + v
                score = b.fmul(b.sitofp(b.extract_value(acc, i), kind), scale)
                store(b, score, b.add(to, I64(4 * self.lanes * i)))
                known = b.extract_value(most, v)
                most = b.insert_value(most, b.select(b.fcmp_ordered(">", score, known), score, known), v)
        return most

    def _put(self, b: Any, x: Any, to: Any) -> None:
        for v in range(self.vectors):
            store(b, b.extract_value(x, v), b.add(to, I64(4 * self.lanes * v)))

    def _weigh(self, b: Any, total: Any, scores: Any, top: Any, scale: Any, to: Any, left: Any = None) -> Any:
        """Weights of four keys, of which `left` are there, for a vector of queries; their sum and `total`."""
        weights: list[Any] = []
        for j in range(4):
            score = self._vector(b, scores, j * self.vectors, self.simd.F.ir)
            weight = rounded(b, self._power(b, b.fmul(b.fsub(score, top), scale)))
            if left is not None:
                there = splat(b, b.icmp_signed("<", I64(j), left), self.lanes)
                weight = b.select(there, weight, constant(self.words, 0))
            total = b.add(total, weight)
            weights.append(weight)
        store_words(b, to, I64(self.row), 32 // self.bits, weights)
        return total

    def _power(self, b: Any, x: Any) -> Any:
        """2**x times the largest weight, x at most 0: to 1e-4 of it in 8 bits."""
        if self.bits == 8:
            return _power(b, x)
        return b.fmul(exp2(b, x, self.lanes == 16), constant(x.type, _WEIGHTS))

    def _spread(self, b: Any, acc: Any, p: Any, values: Any) -> Any:
        """A word of weights times TOGETHER columns of values."""
        weights = [self._vector(b, p, v, self.words) for v in range(self.vectors)]
        for j in range(TOGETHER):
            value = splat(b, load(b, b.add(values, I64(4 * j)), I32), self.lanes)
            for v, weight in enumerate(weights):
                i = j * self.vectors + v
                acc = b.insert_value(acc, self._dot(b, b.extract_value(acc, i), weight, value), i)
        return acc

    def _add(self, b: Any, acc: Any, y: Any, factors: Any, shares: Any) -> None:
        """y = y * the panel's first factors + acc * its second ones * the column's share."""
        kind, wide = self.simd.F.ir, 4 * self.lanes * self.vectors
        old = [self._vector(b, factors, v, kind) for v in range(self.vectors)]
        new = [self._vector(b, b.add(factors, I64(wide)), v, kind) for v in range(self.vectors)]
        for j in range(TOGETHER):
            share = splat(b, load(b, b.add(shares, I64(4 * j)), F32), self.lanes)
            for v in range(self.vectors):
                i = j * self.vectors + v
                place = b.add(y, I64(4 * self.lanes * i))
                some = b.fmul(b.sitofp(b.extract_value(acc, i), kind), share)
                store(b, fma(b, some, new[v], b.fmul(load(b, place, kind), old[v])), place)


def _power(b: Any, x: Any) -> Any:
    """255 * 2**x to 1e-4 of it, x at most 0."""
    kind = x.type
    y = b.select(b.fcmp_ordered("<", x, constant(kind, -64.0)), constant(kind, -64.0), x)
    n = call(b, f"llvm.roundeven.v{kind.count}f32", kind, (y,))
    r = b.fsub(y, n)
    p = constant(kind, 255 * C3)
    for c in (C2, C1, 1.0):
        p = fma(b, p, r, constant(kind, 255 * c))
    if kind.count == 16:
        mask = ir.Constant(ir.IntType(16), -1)
        return call(b, "llvm.x86.avx512.mask.scalef.ps.512", kind, (p, n, p, mask, I32(4)))
    ints = ir.VectorType(I32, kind.count)
    power = b.shl(b.fptosi(n, ints), constant(ints, 23))
    return b.bitcast(b.add(b.bitcast(p, ints), power), kind)


C1, C2, C3 = 0.69328297, 0.24221096, 0.05500857  # 2**r on [-1/2, 1/2], minimax but for 1 at 0


def _block(simd: Simd, wide: int, bits: int) -> Any:
    """A block of keys and values for a panel of queries."""
    panel, lanes, vectors = _Panel(simd, wide, bits), simd.lanes, wide // simd.lanes
    size, per = bits // 8, 32 // bits
    begin, score, scores, lowest, put, zeros = (
        panel.begin, panel.score, panel.scores, panel.lowest, panel.put, panel.zeros,
    )  # fmt: skip
    weigh, weigh_part, none, floats, spread, add = (
        panel.weigh, panel.weigh_part, panel.none, panel.floats, panel.spread, panel.add,
    )  # fmt: skip
    load, store, sub, mul, join, exp2, larger = (
        simd.load, simd.store, simd.sub, simd.mul, simd.fma, simd.exp2, simd.quick_maximum,
    )  # fmt: skip
    row = 4 * wide  # bytes of a number for each query
    scores_at = int_parts(lanes)[0]

    @jit
    def look(
        q: int, start: int, keys: int, scales: int, count: int, width: int, padded: int, to: int, top: int
    ) -> None:  # fmt: skip
        """Scores, and the largest ones."""
        most = lowest()
        for j in range(0, count, TOGETHER):
            acc, x, k = begin(start), q, keys + size * j * padded
            for _ in range((width + per - 1) // per):
                acc = score(acc, x, k, size * padded)
                x += row
                k += 4
            most = scores(most, acc, scales + 4 * j, to + j * row)
        put(most, top)

    @jit
    def judge(v: int, count: int, at: int, top: int, scale: int, weights: int) -> Any:
        """Weights of a vector of queries; their sum."""
        total, t, s = none(), load(top), load(scale)
        for j in range(0, count - 3, 4):
            total = weigh(total, at + j * row, t, s, weights + j // per * row)
        if count % 4:
            j = count // 4 * 4
            total = weigh_part(total, at + j * row, t, s, weights + j // per * row, count - j)
        return floats(total)

    @jit
    def give(values: int, count: int, width: int, padded: int, weights: int, shares: int, factors: int, y: int) -> None:
        """Weights times values."""
        for i in range(0, width, TOGETHER):
            acc, p, v = zeros(), weights, values + 4 * i
            for _ in range((count + per - 1) // per):
                acc = spread(acc, p, v)
                p += row
                v += 4 * padded
            add(acc, y + i * row, factors, shares + 4 * i)

    @jit
    def take(
        q: int, keys: int, values: int, scales: int, shares: int, count: int, width: int, padded: int, state: int,
        scratch: int, sums: int,
    ) -> None:  # fmt: skip
        scored, factors = scratch + scores_at, scratch + scores_at - 3 * row
        weights, top = scored + PAGE * row, factors + 2 * row
        look(q, state + 12 * INT_ROWS, keys, scales, count, width, padded, scored, top)
        for v in range(vectors):
            i = 4 * v * lanes
            scale = state + 8 * INT_ROWS + i
            total = judge(v, count, scored + i, top + i, scale, weights + i)
            before, here, factor = load(state + i), load(top + i), load(scale)
            now = larger(here, before)
            old, new = exp2(mul(sub(before, now), factor)), exp2(mul(sub(here, now), factor))
            store(factors + i, old)
            store(factors + row + i, new)
            store(state + i, now)
            there = state + 4 * INT_ROWS + i
            store(there, join(total, new, mul(load(there), old)))
        give(values, count, width, padded, weights, shares, factors, sums)

    return take


def _write(simd: Simd, wide: int) -> Any:
    at, f32_at, lanes, turn = simd.i64_at, simd.f32_at, simd.lanes, transpose(simd)
    load, store, mul, splat = simd.load, simd.store_part, simd.mul, simd.splat
    room_at = int_parts(lanes)[0]

    @jit
    def write(args: int, row: int, rows: int, head: int, sums: int, state: int, scratch: int) -> None:
        """A panel's sums [width][wide] by their weights'."""
        width, room = at(args + WIDTH), scratch + room_at
        for r in range(0, rows, lanes):
            for i in range(0, width, lanes):
                turn(sums + 4 * (i * wide + r), 4 * wide, lanes, lanes, room, 4 * lanes)
                for j in range(min(lanes, rows - r)):
                    y = at(args + OUT) + (row + r + j) * at(args + OUT_ROW) + head * width * 4
                    share = 1.0 / f32_at(state + 4 * (INT_ROWS + r + j))
                    store(y + 4 * i, mul(load(room + 4 * lanes * j), splat(share)), width - i)

    return write
