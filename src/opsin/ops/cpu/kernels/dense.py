"""Linear layers of many rows over float weights: what `linear` computes, to the bit, in the shape that encoders have.

Rows of x come in panels (see `turn_rows`). Where vectors are long, products read weights as they lie: to make them
float32 costs less than to write them down. Otherwise those of some outputs become float32 in scratch, DENSE_INPUTS
inputs at a time, for all panels of a block. A result is one sum over the inputs in order, carried through y from one
stretch of inputs to the next.

Items are blocks of rows times parts of the outputs. Arguments: weights, x, y, bytes a row of y, outputs, inputs, rows,
bias or 0, residual or 0, bytes a row of it, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from numba import types

from opsin.ops.cpu.dots import LOADS, Dots
from opsin.ops.cpu.kernels.linear import activating
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.layout import DENSE_PANELS, FLOAT_BYTES, STRIP, dense_rows, dense_stretch, dense_vectors
from opsin.ops.cpu.panel import Panel
from opsin.ops.cpu.simd import I64, Simd, operation

(W, X, Y, Y_ROW, OUTPUTS, INPUTS, ROWS, BIAS, RESIDUAL, RESIDUAL_ROW, SCRATCH, SCRATCH_BYTES) = (
    8 * i for i in range(12)
)


def make(simd: Simd, kind: str, activation: str = "") -> Any:
    at, size = simd.i64_at, FLOAT_BYTES[kind]
    rows, wide = dense_rows(simd.lanes, simd.isa.registers), dense_vectors(simd.isa.registers) * simd.lanes
    broad = max(STRIP, wide)
    (panel, tile), finish = _tile(simd), _finish(simd, activation)
    zeros, load, load_part, stretch_of = panel.zeros, panel.load, tile.load, jit(dense_stretch)
    widened = simd.lanes < 16 and kind != "f32"
    widen, step = _widening(simd, kind), panel.step if widened else _step_in_place(panel, kind)
    line = 4 * broad if widened else size * STRIP  # bytes from one input's weights to the next one's

    @jit
    def part_of(args: int, block: int, first_column: int, scratch: int) -> None:
        inputs, first = at(args + INPUTS), block * DENSE_PANELS * rows
        last = min(first + DENSE_PANELS * rows, at(args + ROWS))
        columns, strip_bytes = min(broad, at(args + OUTPUTS) - first_column), inputs * STRIP * size
        y_row, stretch = at(args + Y_ROW), stretch_of(inputs)
        piece, stretches = 4 * stretch * rows, (inputs + stretch - 1) // stretch
        for number in range(stretches):
            k = number * stretch
            count = min(stretch, inputs - k)
            weights, more = at(args + W) + first_column // STRIP * strip_bytes + k * STRIP * size, 4
            if widened:
                widen(weights, strip_bytes, columns, count, scratch)
                weights = scratch
            else:
                more = strip_bytes if columns > STRIP else 0  # there may be no second strip
            x = at(args + X) + (block * stretches + number) * DENSE_PANELS * piece
            for row in range(first, last, rows):
                for part in range(0, columns, wide):
                    column = first_column + part
                    y = at(args + Y) + row * y_row + 4 * column
                    if k == 0:
                        acc = zeros()
                    elif last - row >= rows and columns - part >= wide:
                        acc = load(y, y_row)
                    else:
                        acc = load_part(y, y_row, last - row, columns - part)
                    a, b = weights + part * (line // broad if widened else size), x
                    for _ in range(count):
                        acc = step(acc, a, b, more)
                        a += line
                        b += 4 * rows
                    finish(args, acc, y, row, last - row, column, columns - part, k + count == inputs)
                x += piece

    def dense(args: int, first: int, last: int, thread: int) -> int:
        parts = (at(args + OUTPUTS) + broad - 1) // broad
        scratch = at(args + SCRATCH) + thread * at(args + SCRATCH_BYTES)
        for item in range(first, last):
            part_of(args, item // parts, item % parts * broad, scratch)
        return 0

    return dense


def _step_in_place(panel: Panel, kind: str) -> Any:
    """A panel's step over weights as they lie: vectors of the next strip are `more` bytes ahead."""
    read, lanes, size = LOADS[kind][0], panel.simd.lanes, FLOAT_BYTES[kind]

    def emit(b: Any, acc: Any, w: Any, x: Any, more: Any) -> Any:
        weights = []
        for v in range(panel.vectors):
            strip, place = divmod(v * lanes, STRIP)
            start = b.add(w, b.mul(more, I64(strip))) if strip else w
            weights.append(read(b, b.add(start, I64(size * place)), lanes))
        return panel.add_products(b, acc, weights, x, I64(4))

    return operation(panel.kind, (panel.kind, *[types.int64] * 3), emit)


def _widening(simd: Simd, kind: str) -> Any:
    """Some inputs of the strips under some outputs, as float32: [inputs][outputs]."""
    load, store, lanes = {"f16": simd.load_f16, "bf16": simd.load_bf16, "f32": simd.load}[kind], simd.store, simd.lanes
    size, broad = FLOAT_BYTES[kind], max(STRIP, dense_vectors(simd.isa.registers) * simd.lanes)

    @jit
    def widen(w: int, strip_bytes: int, columns: int, count: int, to: int) -> None:
        for strip in range((columns + STRIP - 1) // STRIP):
            for k in range(count):
                x, y = w + strip * strip_bytes + k * STRIP * size, to + 4 * (k * broad + strip * STRIP)
                for i in range(0, STRIP, lanes):
                    store(y + 4 * i, load(x + size * i))

    return widen


def _tile(simd: Simd) -> tuple[Panel, Dots]:
    """The same registers as a panel, and as a tile whose ends may be missing."""
    shape = dense_vectors(simd.isa.registers), dense_rows(simd.lanes, simd.isa.registers)
    return Panel(simd, vectors=shape[0], rows=shape[1]), Dots(simd, vectors=shape[0], tokens=shape[1])


def _finish(simd: Simd, activation: str) -> Any:
    at, (panel, tile), active = simd.i64_at, _tile(simd), activation != ""
    add_bias, add_rows, store, store_part = tile.add_bias, tile.add_rows, panel.store, tile.store
    activate, rows, wide = activating(simd, activation or "copy"), tile.tokens, tile.vectors * simd.lanes

    @inlined
    def finish(args: int, acc: Any, y: int, row: int, left: int, column: int, columns: int, last: bool) -> None:
        y_row = at(args + Y_ROW)
        if last:
            if at(args + BIAS) != 0:
                acc = add_bias(acc, at(args + BIAS) + 4 * column)
            if at(args + RESIDUAL) != 0:
                stride = at(args + RESIDUAL_ROW)
                acc = add_rows(acc, at(args + RESIDUAL) + row * stride + 4 * column, stride, left, columns)
        if left >= rows and columns >= wide:
            store(acc, y, y_row)
        else:
            store_part(acc, y, y_row, left, columns)
        if last and active:
            for t in range(min(left, rows)):
                activate(args, y + t * y_row, min(columns, wide))

    return finish
