"""Linear layers of many rows over weights of 16 bits or more: what `linear` computes, to the bit, in another order.

An item is a block of rows times one or two strips of outputs. The rows of a block stay in the second cache while its
items pass, a stretch of the strips' inputs in the first two while it meets all rows of the block. A result is one sum
over the inputs in order, carried through y from one stretch to the next. Where vectors are long, products read floats
as they lie: to make them float32 costs less than to write them down. Otherwise a stretch becomes float32 in scratch.

Arguments: weights, x (float32, or the integers of `quantise_int16`), bytes a row of x, y, bytes a row of y, outputs,
inputs, rows, bias or 0, residual or 0, bytes a row of it, scratch, bytes of scratch a thread, rows a block. Integers
have their scales in the place of scratch.
"""

from __future__ import annotations

from typing import Any

from numba import types

from opsin.ops.cpu.dots import LOADS, Dots
from opsin.ops.cpu.kernels.int16_sums import sums_of
from opsin.ops.cpu.kernels.linear import activating
from opsin.ops.cpu.kernels.shared import inlined, jit, nothing
from opsin.ops.cpu.simd import I64, Simd, operation
from opsin.ops.cpu.tiles import DENSE_INPUTS, dense_strips
from opsin.ops.layout import BLOCK, FLOAT_BYTES, STRIP, Layout

(W, X, X_ROW, Y, Y_ROW, OUTPUTS, INPUTS, ROWS, BIAS, RESIDUAL, RESIDUAL_ROW, SCRATCH, SCRATCH_BYTES,
 BLOCK_ROWS) = (8 * i for i in range(14))  # fmt: skip
SCALES, SCALES_ROW = SCRATCH, SCRATCH_BYTES


def make(simd: Simd, kind: str, activation: str = "") -> Any:
    at, tile, strip_bytes, widened = simd.i64_at, _tile(simd), jit(Layout(kind).strip_bytes), _widened(simd, kind)
    add = _integers(simd, tile) if kind == "int16" else _floats(simd, tile, kind)
    widen, finish = _widening(simd, tile, kind) if widened else nothing, _finish(tile)
    activate, active = activating(simd, activation or "copy"), activation != ""
    tokens, wide, broad = tile.tokens, tile.vectors * simd.lanes, STRIP * dense_strips(simd.lanes, simd.isa.registers)
    load, store, zeros = tile.load, tile.store, tile.zeros

    @jit
    def item_of(args: int, block: int, begin: int, scratch: int) -> None:
        inputs, y_row, rows = at(args + INPUTS), at(args + Y_ROW), at(args + BLOCK_ROWS)
        first = block * rows
        last, columns = min(first + rows, at(args + ROWS)), min(broad, at(args + OUTPUTS) - begin)
        strip = strip_bytes(inputs)
        more = strip if columns > STRIP else 0  # there may be no second strip
        for k in range(0, inputs, DENSE_INPUTS):
            count = min(DENSE_INPUTS, inputs - k)
            weights = at(args + W) + begin // STRIP * strip + strip_bytes(k)
            if widened:
                widen(weights, count, scratch)
                weights = scratch
            for row in range(first, last, tokens):
                left = last - row
                for part in range(0, columns, wide):
                    y = at(args + Y) + row * y_row + 4 * (begin + part)
                    acc = zeros() if k == 0 else load(y, y_row, left, columns - part)
                    acc = add(args, acc, weights, more, row, left, part, k, count)
                    if k + count < inputs:
                        store(acc, y, y_row, left, columns - part)
                    else:
                        finish(args, acc, row, left, begin + part, columns - part)
        if active:  # not of each tile at once: what was just stored in part cannot be read again without waiting
            for row in range(first, last):
                activate(args, at(args + Y) + row * y_row + 4 * begin, columns)

    def dense(args: int, first: int, last: int, thread: int) -> int:
        parts = (at(args + OUTPUTS) + broad - 1) // broad
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for item in range(first, last):
            item_of(args, item // parts, item % parts * broad, scratch)
        return 0

    return dense


def _tile(simd: Simd) -> Dots:
    """The largest tile whose sums stand in registers."""
    if simd.isa.registers >= 32:
        return Dots(simd, vectors=4, tokens=6 if simd.lanes >= 8 else 4)
    return Dots(simd, vectors=2, tokens=6 if simd.lanes >= 8 else 4)


def _widened(simd: Simd, kind: str) -> bool:
    return simd.lanes < 16 and kind in ("f16", "bf16")


def _floats(simd: Simd, tile: Dots, kind: str) -> Any:
    """acc + x * w over `count` inputs, from input `k` of x on.

    Rows of x, of which `left` exist, times vectors of one or two strips, of which the later lies `more` bytes behind w.
    """
    at, widened, lanes, i64 = simd.i64_at, _widened(simd, kind), simd.lanes, types.int64
    read, size = LOADS["f32" if widened else kind]
    line = size * (tile.vectors * lanes if widened else STRIP)

    def emit(b: Any, acc: Any, w: Any, more: Any, x: Any, stride: Any, left: Any) -> Any:
        weights = []
        for v in range(tile.vectors):
            strip, place = divmod(v * lanes, STRIP)
            start = b.add(w, b.mul(more, I64(strip))) if strip else w
            weights.append(read(b, b.add(start, I64(size * place)), lanes))
        return tile.add_products(b, acc, weights, x, stride, left)

    step = operation(tile.F, (tile.F, *[i64] * 5), emit)

    @inlined
    def add(args: int, acc: Any, w: int, more: int, row: int, left: int, part: int, k: int, count: int) -> Any:
        x_row = at(args + X_ROW)
        x = at(args + X) + row * x_row + 4 * k
        w += part * (4 * count if widened else size)
        for _ in range(count):
            acc = step(acc, w, more, x, x_row, left)
            w += line
            x += 4
        return acc

    return add


def _integers(simd: Simd, tile: Dots) -> Any:
    """The same of 16-bit integers."""
    at, sums = simd.i64_at, sums_of(simd, tile)

    @inlined
    def add(args: int, acc: Any, w: int, more: int, row: int, left: int, part: int, k: int, count: int) -> Any:
        x_row, s_row = at(args + X_ROW), at(args + SCALES_ROW)
        x, s = at(args + X) + row * x_row + 2 * k, at(args + SCALES) + row * s_row + 4 * (k // BLOCK)
        return sums(acc, w + 4 * part, more, x, x_row, s, s_row, left, (count + 1) // 2, False)

    return add


def _widening(simd: Simd, tile: Dots, kind: str) -> Any:
    """Some inputs of a strip as float32, tile by tile: [STRIP / outputs of a tile][inputs][outputs of a tile]."""
    load, store, lanes = {"f16": simd.load_f16, "bf16": simd.load_bf16, "f32": simd.load}[kind], simd.store, simd.lanes
    size, wide = FLOAT_BYTES[kind], tile.vectors * simd.lanes

    @jit
    def widen(w: int, count: int, to: int) -> None:
        for part in range(0, STRIP, wide):
            for k in range(count):
                for i in range(0, wide, lanes):
                    store(to + 4 * i, load(w + size * (k * STRIP + part + i)))
                to += 4 * wide

    return widen


def _finish(tile: Dots) -> Any:
    """finish(args, acc, row, left, column, columns): a tile with bias and residual, into y."""
    at, add_bias, add_rows, store = tile.simd.i64_at, tile.add_bias, tile.add_rows, tile.store

    @inlined
    def finish(args: int, acc: Any, row: int, left: int, column: int, columns: int) -> None:
        y_row = at(args + Y_ROW)
        y = at(args + Y) + row * y_row + 4 * column
        if at(args + BIAS) != 0:
            acc = add_bias(acc, at(args + BIAS) + 4 * column)
        if at(args + RESIDUAL) != 0:
            stride = at(args + RESIDUAL_ROW)
            acc = add_rows(acc, at(args + RESIDUAL) + row * stride + 4 * column, stride, left, columns)
        store(acc, y, y_row, left, columns)

    return finish
