"""The largest values of each row with their places, and the sum of e**(value - largest): what sampling reads.

One pass keeps the k largest so far in a heap, where the results go: few vectors hold a value above its smallest.
A second pass sums. A NaN makes the sum NaN, and nothing else can be said of its row.

Arguments: x, bytes a row of x, width, k (address; at most the width), the largest k, places out (int32 [rows, largest
k]), values out (f32, the same), sums out (f32 [rows]). Items are rows.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import Simd

LOG2_E = 1.4426950408889634
BLOCK = 4096  # values that are summed as float32
X, X_ROW, WIDTH, K, MOST, PLACES, VALUES, SUMS = (8 * i for i in range(8))


def make(simd: Simd) -> Any:
    at, put_f32, largest, total = simd.i64_at, simd.put_f32, _largest(simd), _total(simd)

    def candidates(args: int, first: int, last: int, thread: int) -> int:
        width, k, stride = at(args + WIDTH), at(at(args + K)), 4 * at(args + MOST)
        for row in range(first, last):
            x, values = at(args + X) + row * at(args + X_ROW), at(args + VALUES) + row * stride
            largest(x, width, k, values, at(args + PLACES) + row * stride)
            put_f32(at(args + SUMS) + 4 * row, total(x, width, values))
        return 0

    return candidates


def _largest(simd: Simd) -> Any:
    """largest(x, width, k, values, places): the k largest, largest first; equal ones in the order of their places."""
    f32_at, i32_at, put_f32, put_i32, lanes = simd.f32_at, simd.i32_at, simd.put_f32, simd.put_i32, simd.lanes
    load, maximum, peak = simd.load, simd.quick_maximum, simd.quick_peak
    size, four = 4 * lanes, 4 * lanes  # bytes of a vector, values of four

    @jit
    def sift(value: float, place: int, i: int, count: int, values: int, places: int) -> None:
        """Put a value at or below node i of a heap whose top is the smallest, and of equal ones the last."""
        while 2 * i + 1 < count:
            child = 2 * i + 1
            v, p = f32_at(values + 4 * child), i32_at(places + 4 * child)
            if child + 1 < count:
                w, q = f32_at(values + 4 * child + 4), i32_at(places + 4 * child + 4)
                if w < v or (w == v and q > p):
                    child, v, p = child + 1, w, q
            if not (v < value or (v == value and p > place)):
                break
            put_f32(values + 4 * i, v)
            put_i32(places + 4 * i, p)
            i = child
        put_f32(values + 4 * i, value)
        put_i32(places + 4 * i, place)

    @jit
    def scan(x: int, start: int, stop: int, k: int, values: int, places: int) -> None:
        for i in range(start, stop):
            if f32_at(x + 4 * i) > f32_at(values):
                sift(f32_at(x + 4 * i), i, 0, k, values, places)

    @jit
    def largest(x: int, width: int, k: int, values: int, places: int) -> None:
        for i in range(k - 1, -1, -1):
            sift(f32_at(x + 4 * i), i, i, k, values, places)
        i = k
        while i + four <= width:
            a = x + 4 * i
            top = maximum(maximum(load(a), load(a + size)), maximum(load(a + 2 * size), load(a + 3 * size)))
            if peak(top) > f32_at(values):
                scan(x, i, i + four, k, values, places)
            i += four
        scan(x, i, width, k, values, places)
        for count in range(k - 1, 0, -1):
            value, place = f32_at(values + 4 * count), i32_at(places + 4 * count)
            put_f32(values + 4 * count, f32_at(values))
            put_i32(places + 4 * count, i32_at(places))
            sift(value, place, 0, count, values, places)

    return largest


def _total(simd: Simd) -> Any:
    """total(x, width, values): the sum of e**(value - the first of `values`)."""
    load, load_part, keep, splat, lanes = simd.load, simd.load_part, simd.keep_below, simd.splat, simd.lanes
    f32_at, exp, sub, add, zero, total_of = simd.f32_at, simd.exp2, simd.sub, simd.add, simd.zero, simd.sum
    size, four, nothing, mul = 4 * lanes, 4 * lanes, float("-inf"), simd.mul

    @inlined
    def power(x: Any, shift: Any) -> Any:
        return exp(mul(sub(x, shift), splat(LOG2_E)))

    @jit
    def block(x: int, start: int, stop: int, largest: float) -> float:
        """Of so few that float32 sums are good to its last bits."""
        shift, i = splat(largest), start
        a, b, c, d = zero(), zero(), zero(), zero()
        while i + four <= stop:
            p = x + 4 * i
            a, b = add(a, power(load(p), shift)), add(b, power(load(p + size), shift))
            c, d = add(c, power(load(p + 2 * size), shift)), add(d, power(load(p + 3 * size), shift))
            i += four
        while i < stop:
            rest = keep(load_part(x + 4 * i, stop - i), splat(nothing), stop - i)
            a = add(a, power(rest, shift))
            i += lanes
        return total_of(add(add(a, b), add(c, d)))

    @jit
    def total(x: int, width: int, values: int) -> float:
        result = 0.0
        for start in range(0, width, BLOCK):
            result += block(x, start, min(start + BLOCK, width), f32_at(values))
        return result

    return total
