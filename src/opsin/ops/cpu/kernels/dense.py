"""Linear layers of many rows over float weights: what `linear` computes, to the bit, in the shape that encoders have.

Rows of x come in panels (see `turn_rows`); weights of some outputs become float32 in scratch, DENSE_INPUTS inputs at a
time, for all panels of a block. A result is one sum over the inputs in order, carried through y from one stretch of
inputs to the next.

Items are blocks of rows times parts of the outputs. Arguments: weights, x, y, bytes a row of y, outputs, inputs, rows,
bias or 0, residual or 0, bytes a row of it, scratch, bytes of scratch a thread.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.linear import activating
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.layout import DENSE_INPUTS, DENSE_PANELS, FLOAT_BYTES, STRIP, dense_rows, dense_vectors
from opsin.ops.cpu.panel import Panel
from opsin.ops.cpu.simd import Simd

(W, X, Y, Y_ROW, OUTPUTS, INPUTS, ROWS, BIAS, RESIDUAL, RESIDUAL_ROW, SCRATCH, SCRATCH_BYTES) = (
    8 * i for i in range(12)
)


def make(simd: Simd, kind: str, activation: str = "") -> Any:
    at, size = simd.i64_at, FLOAT_BYTES[kind]
    rows, wide = dense_rows(simd.lanes, simd.isa.registers), dense_vectors(simd.isa.registers) * simd.lanes
    broad, piece = max(STRIP, wide), 4 * DENSE_INPUTS * rows
    (panel, tile), widen, finish = _tile(simd), _widening(simd, kind), _finish(simd, activation)
    zeros, step, load, load_part = panel.zeros, panel.step, panel.load, tile.load

    @jit
    def part_of(args: int, block: int, first_column: int, scratch: int) -> None:
        inputs, first = at(args + INPUTS), block * DENSE_PANELS * rows
        last = min(first + DENSE_PANELS * rows, at(args + ROWS))
        columns, strip_bytes = min(broad, at(args + OUTPUTS) - first_column), inputs * STRIP * size
        y_row, stretches = at(args + Y_ROW), (inputs + DENSE_INPUTS - 1) // DENSE_INPUTS
        for k in range(0, inputs, DENSE_INPUTS):
            count = min(DENSE_INPUTS, inputs - k)
            source = at(args + W) + first_column // STRIP * strip_bytes + k * STRIP * size
            widen(source, strip_bytes, columns, count, scratch)
            x = at(args + X) + (block * stretches + k // DENSE_INPUTS) * DENSE_PANELS * piece
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
                    a, b = scratch + 4 * part, x
                    for _ in range(count):
                        acc = step(acc, a, b, 4)
                        a += 4 * broad
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
