"""Linear layers of many rows by 16-bit integers: what `linear` computes of them, to the bit (see `int16_sums`).

An item is a block of rows times one or two strips of outputs, as in `dense`.

Arguments: weights, rows as integers, bytes a row of them, y, bytes a row of y, outputs, inputs, rows, bias or 0,
residual or 0, bytes a row of it, scales of rows, bytes a row of them, rows a block.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.dense import (
    BLOCK_ROWS,
    INPUTS,
    OUTPUTS,
    ROWS,
    SCRATCH,
    SCRATCH_BYTES,
    X_ROW,
    Y_ROW,
    W,
    X,
    Y,
    finish_of,
    tile_of,
)
from opsin.ops.cpu.kernels.int16_sums import sums_of
from opsin.ops.cpu.kernels.linear import activating
from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.simd import Simd
from opsin.ops.cpu.tiles import DENSE_INPUTS, dense_strips
from opsin.ops.layout import BLOCK, STRIP, Layout

SCALES, SCALES_ROW = SCRATCH, SCRATCH_BYTES  # what `dense` has no use for here


def make(simd: Simd, activation: str = "") -> Any:
    at, tile = simd.i64_at, tile_of(simd)
    sums, finish = sums_of(simd, tile), finish_of(tile)
    activate, active = activating(simd, activation or "copy"), activation != ""
    tokens, wide, broad = tile.tokens, tile.vectors * simd.lanes, STRIP * dense_strips(simd.lanes, simd.isa.registers)
    load, store, zeros, strip_bytes = tile.load, tile.store, tile.zeros, jit(Layout("int16").strip_bytes)

    @jit
    def item_of(args: int, block: int, begin: int) -> None:
        inputs, x_row, s_row, y_row = at(args + INPUTS), at(args + X_ROW), at(args + SCALES_ROW), at(args + Y_ROW)
        rows = at(args + BLOCK_ROWS)
        first = block * rows
        last, columns = min(first + rows, at(args + ROWS)), min(broad, at(args + OUTPUTS) - begin)
        strip = strip_bytes(inputs)
        more = strip if columns > STRIP else 0  # there may be no second strip
        for k in range(0, inputs, DENSE_INPUTS):
            pairs = (min(DENSE_INPUTS, inputs - k) + 1) // 2
            weights = at(args + W) + begin // STRIP * strip + strip_bytes(k)
            for row in range(first, last, tokens):
                x, s = at(args + X) + row * x_row + 2 * k, at(args + SCALES) + row * s_row + 4 * (k // BLOCK)
                left = last - row
                for part in range(0, columns, wide):
                    y = at(args + Y) + row * y_row + 4 * (begin + part)
                    acc = zeros() if k == 0 else load(y, y_row, left, columns - part)
                    acc = sums(acc, weights + 4 * part, more, x, x_row, s, s_row, left, pairs, False)
                    if k + DENSE_INPUTS < inputs:
                        store(acc, y, y_row, left, columns - part)
                    else:
                        finish(args, acc, row, left, begin + part, columns - part)
        if active:  # not of each tile at once: what was just stored in part cannot be read again without waiting
            for row in range(first, last):
                activate(args, at(args + Y) + row * y_row + 4 * begin, columns)

    def dense_int16(args: int, first: int, last: int, thread: int) -> int:
        parts = (at(args + OUTPUTS) + broad - 1) // broad
        for item in range(first, last):
            item_of(args, item // parts, item % parts * broad)
        return 0

    return dense_int16
