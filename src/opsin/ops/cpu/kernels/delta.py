"""The gated delta rule (see `Ops.delta`): the rows of each sequence through the state of a head. Items are heads.

A state lies as [heads][strips][keys][strip]: `vectors` vectors of value columns, which never meet, are a strip, and a
strip stays in the nearest cache while a block of rows passes. A row reads a strip once: while it writes what it adds,
it sums what the next row asks for,
    m = k' S and p = q' S;  d = beta (v - decay m);  out = scale (decay p + (q' k) d);  S = decay S + k d'.
Sums over keys run in the order of keys, whatever rows stand beside.

Arguments: q, bytes a row, k, bytes a row, v, bytes a row, decay, bytes a row, beta, bytes a row, out, bytes a row,
states of the layer, bytes a slot, slots, starts, reads, writes, sequences (address of the count), rows (address of the
count), key heads, value heads of a key head that stand together (0: none do, j has j mod key heads), keys, values,
values as they lie in a state, scale and eps (f32 bits), scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu import cells
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import F32, I64, Simd, Tile, constant, fma, load, load_part, operation, splat, store, store_part
from opsin.ops.cpu.tiles import DELTA_ROWS

Q, Q_ROW, K, K_ROW, V, V_ROW, DECAY, DECAY_ROW, BETA, BETA_ROW, OUT, OUT_ROW = (8 * i for i in range(12))
STATES, SLOT, SLOTS, STARTS, READS, WRITES, SEQUENCES, ROWS = (8 * i for i in range(12, 20))
GROUPS, TOGETHER, KEYS, VALUES, PADDED, SCALE, EPS, SCRATCH, SCRATCH_BYTES = (8 * i for i in range(20, 29))
BY_HAND = True


def make(simd: Simd, vectors: int) -> Any:
    at, i32, bad = simd.i64_at, simd.i32_at, cells.BAD_STATE
    prepare, rows_of, clear = _unit(simd), _rows(simd, vectors), _clearing(simd)
    wide = vectors * simd.lanes

    @jit
    def run(args: int, head: int, begin: int, end: int, before: int, after: int, scratch: int) -> None:
        keys = at(args + KEYS)
        for block in range(begin, end, DELTA_ROWS):
            rows = min(DELTA_ROWS, end - block)
            prepare(args, head, block, rows, scratch)
            for column in range(0, at(args + VALUES), wide):
                place = column * keys * 4
                rows_of(args, head, block, rows, column, before + place, after + place, scratch)
            before = after

    def delta(args: int, first: int, last: int, thread: int) -> int:
        size, slots = at(args + KEYS) * at(args + PADDED) * 4, at(args + SLOTS)
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for head in range(first, last):
            for sequence in range(at(at(args + SEQUENCES))):
                begin, end = i32(at(args + STARTS) + 4 * sequence), i32(at(args + STARTS) + 4 * sequence + 4)
                if begin >= end:
                    continue
                read, write = i32(at(args + READS) + 4 * sequence), i32(at(args + WRITES) + 4 * sequence)
                if read >= slots or write < 0 or write >= slots or begin < 0 or end > at(at(args + ROWS)):
                    return bad
                after = at(args + STATES) + write * at(args + SLOT) + head * size
                before = at(args + STATES) + read * at(args + SLOT) + head * size
                if read < 0:
                    before = after
                    clear(after, size)
                run(args, head, begin, end, before, after, scratch)
        return 0

    return delta


def _clearing(simd: Simd) -> Any:
    store, zero, lanes = simd.store, simd.zero, simd.lanes

    @jit
    def clear(place: int, size: int) -> None:
        for i in range(0, size, 4 * lanes):
            store(place + i, zero())

    return clear


def _unit(simd: Simd) -> Any:
    """Some rows of a head's k and q into scratch, as unit vectors, and what they have in common (q' k)."""
    at, f32_at, put, sqrt, total = simd.i64_at, simd.f32_at, simd.put_f32, simd.sqrt1, simd.sum
    load, store, splat, zero = simd.load_part, simd.store_part, simd.splat, simd.zero
    fma, mul, lanes = simd.fma, simd.mul, simd.lanes

    @jit
    def unit(x: int, width: int, eps: float, to: int) -> None:
        acc = zero()
        for i in range(0, width, lanes):
            v = load(x + 4 * i, width - i)
            acc = fma(v, v, acc)
        factor = splat(1.0 / sqrt(total(acc) + eps))
        for i in range(0, width, lanes):
            store(to + 4 * i, mul(load(x + 4 * i, width - i), factor), width - i)

    @jit
    def prepare(args: int, head: int, block: int, rows: int, scratch: int) -> None:
        keys, eps, together = at(args + KEYS), f32_at(args + EPS), at(args + TOGETHER)
        place = 4 * keys * (head // together if together > 0 else head % at(args + GROUPS))
        to_q, dots = scratch + 4 * DELTA_ROWS * keys, scratch + 8 * DELTA_ROWS * keys
        for r in range(rows):
            k, q = scratch + 4 * r * keys, to_q + 4 * r * keys
            unit(at(args + K) + (block + r) * at(args + K_ROW) + place, keys, eps, k)
            unit(at(args + Q) + (block + r) * at(args + Q_ROW) + place, keys, eps, q)
            acc = zero()
            for i in range(0, keys, lanes):
                acc = fma(load(k + 4 * i, keys - i), load(q + 4 * i, keys - i), acc)
            put(dots + 4 * r, total(acc))

    return prepare


def _rows(simd: Simd, vectors: int) -> Any:
    """Some rows through one strip of a state."""
    at, f32_at, step = simd.i64_at, simd.f32_at, 4 * vectors * simd.lanes
    zeros, see, errors, write, add, turn = _tiles(simd, vectors)

    @inlined
    def look(s: int, k: int, q: int, count: int) -> Any:
        acc = zeros()
        for _ in range(count):
            acc = see(acc, s, k, q)
            s += step
            k += 4
            q += 4
        return acc

    @inlined
    def pass_on(d: Any, decay: float, s: int, to: int, k: int, q: int, count: int) -> Any:
        """What the next row, whose k follows, sums of the strip as this row leaves it."""
        acc, row = zeros(), 4 * count
        for _ in range(count):
            acc = turn(acc, d, decay, s, to, k, k + row, q)
            s += step
            to += step
            k += 4
            q += 4
        return acc

    @inlined
    def leave(d: Any, decay: float, s: int, to: int, k: int, count: int) -> None:
        for _ in range(count):
            add(d, decay, s, to, k)
            s += step
            to += step
            k += 4

    @jit
    def rows_of(args: int, head: int, block: int, rows: int, column: int, s: int, to: int, scratch: int) -> None:
        keys, scale = at(args + KEYS), f32_at(args + SCALE)
        k, q, dots = scratch, scratch + 4 * DELTA_ROWS * keys, scratch + 8 * DELTA_ROWS * keys
        left, place = at(args + VALUES) - column, 4 * (head * at(args + VALUES) + column)
        acc = look(s, k, q, keys)
        for row in range(block, block + rows):
            decay = f32_at(at(args + DECAY) + row * at(args + DECAY_ROW) + 4 * head)
            beta = f32_at(at(args + BETA) + row * at(args + BETA_ROW) + 4 * head)
            d = errors(acc, at(args + V) + row * at(args + V_ROW) + place, left, decay, beta)
            write(acc, d, at(args + OUT) + row * at(args + OUT_ROW) + place, left, decay, f32_at(dots), scale)
            if row + 1 < block + rows:
                acc = pass_on(d, decay, s, to, k, q + 4 * keys, keys)
            else:
                leave(d, decay, s, to, k, keys)
            s = to
            k += 4 * keys
            q += 4 * keys
            dots += 4

    return rows_of


def _tiles(simd: Simd, vectors: int) -> tuple[Any, ...]:
    """Operations on a strip's row: sums m and p are a tile of twice `vectors`, d is one of `vectors`."""
    n, f, i64, f32 = simd.lanes, simd.F.ir, types.int64, types.float32
    sums, parts = Tile(simd.F, 2 * vectors), Tile(simd.F, vectors)

    def at(b: Any, place: Any, v: int) -> Any:
        return b.add(place, I64(4 * n * v))

    def number(b: Any, place: Any) -> Any:
        return splat(b, load(b, place, F32), n)

    def summed(b: Any, acc: Any, s: list[Any], k: Any, q: Any) -> Any:
        for half, numbers in enumerate((number(b, k), number(b, q))):
            for v, vector in enumerate(s):
                i = half * vectors + v
                acc = b.insert_value(acc, fma(b, vector, numbers, b.extract_value(acc, i)), i)
        return acc

    def see(b: Any, acc: Any, s: Any, k: Any, q: Any) -> Any:
        return summed(b, acc, [load(b, at(b, s, v), f) for v in range(vectors)], k, q)

    def added(b: Any, d: Any, decay: Any, s: Any, to: Any, k: Any) -> list[Any]:
        """The strip's row with what a row of the batch adds to it, which is written to `to`."""
        key, keep, result = number(b, k), splat(b, decay, n), []
        for v in range(vectors):
            kept = b.fmul(load(b, at(b, s, v), f), keep)
            result.append(fma(b, b.extract_value(d, v), key, kept))
            store(b, result[-1], at(b, to, v))
        return result

    def turn(b: Any, acc: Any, d: Any, decay: Any, s: Any, to: Any, k: Any, next_k: Any, next_q: Any) -> Any:
        return summed(b, acc, added(b, d, decay, s, to, k), next_k, next_q)

    def errors(b: Any, acc: Any, values: Any, left: Any, decay: Any, beta: Any) -> Any:
        d, less, share = ir.Constant(parts.ir, ir.Undefined), splat(b, b.fneg(decay), n), splat(b, beta, n)
        for v in range(vectors):
            value = load_part(b, n, at(b, values, v), b.sub(left, I64(n * v)))
            d = b.insert_value(d, b.fmul(fma(b, b.extract_value(acc, v), less, value), share), v)
        return d

    def write(b: Any, acc: Any, d: Any, out: Any, left: Any, decay: Any, dot: Any, scale: Any) -> None:
        keep, common, factor = (splat(b, x, n) for x in (decay, dot, scale))
        for v in range(vectors):
            y = fma(b, b.extract_value(acc, vectors + v), keep, b.fmul(b.extract_value(d, v), common))
            store_part(b, n, at(b, out, v), b.fmul(y, factor), b.sub(left, I64(n * v)))

    return (
        operation(sums, (), lambda b: ir.Constant(sums.ir, [constant(f, 0.0)] * sums.n)),
        operation(sums, (sums, i64, i64, i64), see),
        operation(parts, (sums, i64, i64, f32, f32), errors),
        operation(types.void, (sums, parts, i64, i64, f32, f32, f32), write),
        operation(types.void, (parts, f32, i64, i64, i64), lambda *a: added(*a) and None),
        operation(sums, (sums, parts, f32, *[i64] * 5), turn),
    )
