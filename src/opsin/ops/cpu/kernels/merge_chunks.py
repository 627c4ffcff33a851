"""Sums of a row's chunks to the row's result, in order. Items are the rows that were cut.

Arguments: merges (row, first slot, slots: int32), partial, out, bytes a row of out, query heads, width; with sinks: the
score of each head's.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.softmax import LOWEST, merging, sharing
from opsin.ops.cpu.simd import Simd

MERGES, PARTIAL, OUT, OUT_ROW, HEADS, WIDTH, SINKS = (8 * i for i in range(7))


def make(simd: Simd, sinks: bool = False) -> Any:
    at, i32, f32_at, put_f32 = simd.i64_at, simd.i32_at, simd.f32_at, simd.put_f32
    load, store, mul, splat, lanes = simd.load_part, simd.store_part, simd.mul, simd.splat, simd.lanes
    merge, share = merging(simd), sharing(simd, sinks)

    def merge_chunks(args: int, first: int, last: int, thread: int) -> int:
        heads, width = at(args + HEADS), at(args + WIDTH)
        size = (width + 2) * 4
        for item in range(first, last):
            entry = at(args + MERGES) + 12 * item
            row, slot, parts = i32(entry), i32(entry + 4), i32(entry + 8)
            for head in range(heads):
                y = at(args + OUT) + row * at(args + OUT_ROW) + head * width * 4
                # The first chunk's place takes in the others: its state begins as `attend` begins.
                whole = at(args + PARTIAL) + (slot * heads + head) * size
                for part in range(1, parts):
                    other = whole + part * heads * size
                    if f32_at(whole + 4) == 0.0:
                        put_f32(whole, LOWEST)
                    merge(whole + 8, whole, other + 8, other, width)
                factor = splat(share(whole, at(args + SINKS) if sinks else 0, head))
                for i in range(0, width, lanes):
                    store(y + 4 * i, mul(load(whole + 8 + 4 * i, width - i), factor), width - i)
        return 0

    return merge_chunks
