"""Sums that find damage: one 64-bit number for each piece of a run of bytes. Items are pieces.

Arguments: address, bytes (whole LANES words), where the sums go (int64). Word i of a piece enters lane i % LANES:

    mixed = ((lane ^ word) * FACTOR) mod 2^64
    lane = mixed ^ (mixed >> 32)

and at the end the lanes enter one more of their kind, in order. Each step is reversible in the lane and in the word, so
a change that one word holds is always seen; any other escapes with a chance of about 2^-64.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import inlined
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import SUMS_PIECE

FROM, BYTES, TO = (8 * i for i in range(3))
LANES = 8
FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)
_LOW = (1 << 32) - 1


def make(simd: Simd) -> Any:
    at, put = simd.i64_at, simd.put_i64

    @inlined
    def mix(lane: int, word: int) -> int:
        mixed = (lane ^ word) * FACTOR
        return mixed ^ ((mixed >> 32) & _LOW)

    def sums(args: int, first: int, last: int, thread: int) -> int:
        for item in range(first, last):
            start = at(args + FROM) + item * SUMS_PIECE
            a, b, c, d, e, f, g, h = 0, 1, 2, 3, 4, 5, 6, 7
            for word in range(start, min(start + SUMS_PIECE, at(args + FROM) + at(args + BYTES)), 8 * LANES):
                a, b, c, d = mix(a, at(word)), mix(b, at(word + 8)), mix(c, at(word + 16)), mix(d, at(word + 24))
                e, f, g, h = mix(e, at(word + 32)), mix(f, at(word + 40)), mix(g, at(word + 48)), mix(h, at(word + 56))
            whole = mix(mix(mix(mix(0, a), b), c), d)
            put(at(args + TO) + 8 * item, mix(mix(mix(mix(whole, e), f), g), h))
        return 0

    return sums
