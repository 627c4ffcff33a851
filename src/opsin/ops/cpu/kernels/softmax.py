"""Softmax by chunks, and chunks that become one (Milakov and Gimelshein 2018).

Scores are in powers of 2: `attend` scales queries by log2(e), or the cap where there is one. The state of a query is
two numbers: its largest score and the sum of its weights.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd

LOWEST = -(2.0**127)  # a float32: what is stored compares equal to it
LOG2_E = 1.4426950408889634
STATE = 8  # bytes of a query's state


def weighing(simd: Simd, softcap: bool) -> Any:
    """weigh(cap, pull, scores, low, high, state): scores low <= key < high of a chunk to weights, in place.

    Others of their vectors may be changed too; nobody reads them.
    """
    put_f32, splat, exp, exp2, lanes = simd.put_f32, simd.splat, simd.exp, simd.exp2, simd.lanes
    load, store, maximum, peak, add = simd.load, simd.store, simd.quick_maximum, simd.quick_peak, simd.add
    keep, sub, mul, div, zero, total = simd.keep_between, simd.sub, simd.mul, simd.div, simd.zero, simd.sum
    size = 4 * lanes  # bytes of a vector

    @jit
    def capped(scores: int, count: int, cap: float, pull: float) -> None:
        """cap * tanh(s * pull / 2), by e**(s * pull)."""
        for i in range(0, count, lanes):
            e = exp(mul(load(scores + 4 * i), splat(pull)))
            store(scores + 4 * i, mul(splat(cap), sub(splat(1.0), div(splat(2.0), add(e, splat(1.0))))))

    @jit
    def mask(scores: int, start: int, low: int, high: int) -> None:
        """Scores of a block of four vectors that are not to be seen become the lowest."""
        for i in range(start, start + 4 * lanes, lanes):
            store(scores + 4 * i, keep(load(scores + 4 * i), splat(LOWEST), low - i, high - i))

    @jit
    def weigh(cap: float, pull: float, scores: int, low: int, high: int, state: int) -> None:
        begin, four = low // (4 * lanes) * (4 * lanes), 16 * lanes
        scores, low, high = scores + 4 * begin, low - begin, high - begin
        if softcap:
            capped(scores, high, cap, pull)
        if low > 0 or high < 4 * lanes:
            mask(scores, 0, low, high)
        if high % (4 * lanes) != 0:
            mask(scores, high // (4 * lanes) * (4 * lanes), low, high)
        last = scores + 4 * high
        # Four sums side by side: an addition takes longer than the rest of a vector's work.
        a, b, c, d, x = splat(LOWEST), splat(LOWEST), splat(LOWEST), splat(LOWEST), scores
        while x < last:
            a, b = maximum(load(x), a), maximum(load(x + size), b)
            c, d = maximum(load(x + 2 * size), c), maximum(load(x + 3 * size), d)
            x += four
        largest = peak(maximum(maximum(a, b), maximum(c, d)))
        if largest != largest:
            largest = 0.0  # a NaN score makes its own weight NaN, and so the sum
        shift, x = splat(largest), scores
        a, b, c, d = zero(), zero(), zero(), zero()
        while x < last:
            p, q = exp2(sub(load(x), shift)), exp2(sub(load(x + size), shift))
            r, s = exp2(sub(load(x + 2 * size), shift)), exp2(sub(load(x + 3 * size), shift))
            store(x, p)
            store(x + size, q)
            store(x + 2 * size, r)
            store(x + 3 * size, s)
            a, b, c, d = add(a, p), add(b, q), add(c, r), add(d, s)
            x += four
        put_f32(state, largest)
        put_f32(state + 4, total(add(add(a, b), add(c, d))))

    return weigh


def clearing(simd: Simd) -> Any:
    """clear(sums, state, queries, width): nothing was seen yet."""
    store, zero, put_f32, lanes = simd.store, simd.zero, simd.put_f32, simd.lanes

    @jit
    def clear(sums: int, state: int, queries: int, width: int) -> None:
        for i in range(0, queries * width, lanes):
            store(sums + 4 * i, zero())
        for i in range(queries):
            put_f32(state + i * STATE, LOWEST)
            put_f32(state + i * STATE + 4, 0.0)

    return clear


def merging(simd: Simd) -> Any:
    """Two softmax sums become one: `into` and its state (maximum, weight) take in `sums` and theirs."""
    f32_at, put_f32, splat, exp2 = simd.f32_at, simd.put_f32, simd.splat, simd.exp2
    load, store, mul, fma, lanes, first = simd.load_part, simd.store_part, simd.mul, simd.fma, simd.lanes, simd.first
    fma1 = simd.fma1

    @jit
    def merge(into: int, into_state: int, sums: int, state: int, width: int) -> None:
        there, here = f32_at(into_state), f32_at(state)
        if f32_at(state + 4) == 0.0:
            return
        top = there if there >= here else here
        old, new = exp2(splat(there - top)), exp2(splat(here - top))
        for i in range(0, width, lanes):
            n = width - i
            store(into + 4 * i, fma(load(into + 4 * i, n), old, mul(load(sums + 4 * i, n), new)), n)
        weight = fma1(f32_at(into_state + 4), first(old), f32_at(state + 4) * first(new))
        put_f32(into_state, top)
        put_f32(into_state + 4, weight)

    return merge


def sharing(simd: Simd, sinks: bool) -> Any:
    """share(state, sinks, head): what a query's sum is multiplied by: 1 / (weights and its head's sink), 0 for no key.

    A sink counts as a weight without a value; it comes as it is, not in powers of 2.
    """
    f32_at, splat, exp2, first = simd.f32_at, simd.splat, simd.exp2, simd.first

    @jit
    def share(state: int, sink: int, head: int) -> float:
        weight = f32_at(state + 4)
        if weight == 0.0:
            return 0.0
        if sinks:
            power = f32_at(sink + 4 * head) * LOG2_E - f32_at(state)
            weight += first(exp2(splat(min(power, 120.0))))
        return 1.0 / weight

    return share
