"""Linear layers of encoders whose weights and rows are 16-bit integers: y = x w' as `linear` has it.

An item is a block of rows times one or two strips of outputs, as in `dense`. `vpdpwssd` adds two products of 16-bit
integers to a 32-bit sum, in the time that a CPU needs for one of floats. A block's sums are exact (see
`quantise_int16`); a result is a float32 sum over blocks in order, so that a row's result does not depend on its
company.

Arguments: weights, rows as integers, bytes a row of them, y, bytes a row of y, outputs, inputs, rows, bias or 0,
residual or 0, bytes a row of it, scales of rows, bytes a row of them, rows a block.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu.dots import Dots
from opsin.ops.cpu.kernels.dense import BLOCK as ROWS_A_BLOCK
from opsin.ops.cpu.kernels.dense import (
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
from opsin.ops.cpu.kernels.linear import activating
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import I32, I64, Simd, call, constant, fma, load, operation, splat
from opsin.ops.cpu.tiles import DENSE_INPUTS, dense_strips
from opsin.ops.layout import BLOCK, STRIP

SCALES, SCALES_ROW = SCRATCH, SCRATCH_BYTES  # what `dense` has no use for here
_LINE = 4 * STRIP  # bytes of a pair of inputs, and of the scales of a block
_BLOCK_BYTES = _LINE * (1 + BLOCK // 2)


def make(simd: Simd, activation: str = "") -> Any:
    at, tile = simd.i64_at, tile_of(simd)
    sums, finish = _sums(simd, tile), finish_of(tile)
    activate, active = activating(simd, activation or "copy"), activation != ""
    tokens, wide, broad = tile.tokens, tile.vectors * simd.lanes, STRIP * dense_strips(simd.lanes, simd.isa.registers)
    load, store, zeros = tile.load, tile.store, tile.zeros

    @jit
    def item_of(args: int, block: int, begin: int) -> None:
        inputs, x_row, s_row, y_row = at(args + INPUTS), at(args + X_ROW), at(args + SCALES_ROW), at(args + Y_ROW)
        rows = at(args + ROWS_A_BLOCK)
        first = block * rows
        last, columns = min(first + rows, at(args + ROWS)), min(broad, at(args + OUTPUTS) - begin)
        strip = _LINE * ((inputs + BLOCK - 1) // BLOCK + (inputs + 1) // 2)
        more = strip if columns > STRIP else 0  # there may be no second strip
        for k in range(0, inputs, DENSE_INPUTS):
            pairs = (min(DENSE_INPUTS, inputs - k) + 1) // 2
            weights = at(args + W) + begin // STRIP * strip + k // BLOCK * _BLOCK_BYTES
            for row in range(first, last, tokens):
                x, s = at(args + X) + row * x_row + 2 * k, at(args + SCALES) + row * s_row + 4 * (k // BLOCK)
                left = last - row
                for part in range(0, columns, wide):
                    y = at(args + Y) + row * y_row + 4 * (begin + part)
                    acc = zeros() if k == 0 else load(y, y_row, left, columns - part)
                    acc = sums(acc, weights + 4 * part, more, x, x_row, s, s_row, left, pairs)
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


def _sums(simd: Simd, tile: Dots) -> Any:
    """acc + x * w over `pairs` pairs of inputs from the beginning of a block on."""
    zero, step, scale = _zeros(tile), _step(simd, tile), _scale(simd, tile)

    @inlined
    def sums(acc: Any, w: int, more: int, x: int, x_row: int, s: int, s_row: int, left: int, pairs: int) -> Any:
        for begin in range(0, pairs, BLOCK // 2):
            scales, dots = w, zero()
            for _ in range(min(BLOCK // 2, pairs - begin)):
                w += _LINE
                dots = step(dots, w, more, x, x_row, left)
                x += 4
            acc = scale(acc, dots, scales, more, s, s_row, left)
            w += _LINE
            s += 4
        return acc

    return sums


def _zeros(tile: Dots) -> Any:
    kind = tile.I.ir
    return operation(tile.I, (), lambda b: ir.Constant(kind, [constant(kind.element, 0)] * tile.size))


def _vectors(b: Any, tile: Dots, line: Any, more: Any, kind: Any) -> list[Any]:
    """The vectors of a tile's outputs on a line of a strip, and of the strip that lies `more` bytes behind it."""
    places = [divmod(v * tile.lanes, STRIP) for v in range(tile.vectors)]
    starts = [line, b.add(line, more)]
    return [load(b, b.add(starts[strip], I64(4 * place)), kind) for strip, place in places]


def _step(simd: Simd, tile: Dots) -> Any:
    """dots + the products of one pair of inputs."""
    kind, i64 = simd.I.ir, types.int64
    name = f"llvm.x86.avx512.vpdpwssd.{32 * simd.lanes}"

    def emit(b: Any, dots: Any, w: Any, more: Any, x: Any, stride: Any, left: Any) -> Any:
        weights = _vectors(b, tile, w, more, kind)
        for t in range(tile.tokens):
            pair = splat(b, load(b, tile.place(b, x, stride, left, t), I32), simd.lanes)
            for v, weight in enumerate(weights):
                i = t * tile.vectors + v
                dots = b.insert_value(dots, call(b, name, kind, (b.extract_value(dots, i), weight, pair)), i)
        return dots

    return operation(tile.I, (tile.I, *[i64] * 5), emit)


def _scale(simd: Simd, tile: Dots) -> Any:
    """acc + dots * (scales of outputs at w) * (scales of rows at s)."""
    kind, i64 = simd.F.ir, types.int64

    def emit(b: Any, acc: Any, dots: Any, w: Any, more: Any, s: Any, stride: Any, left: Any) -> Any:
        scales = _vectors(b, tile, w, more, kind)
        for t in range(tile.tokens):
            token = tile.token(b, s, stride, left, t)
            for v, scale in enumerate(scales):
                i = t * tile.vectors + v
                value = b.sitofp(b.extract_value(dots, i), kind)
                acc = b.insert_value(acc, fma(b, value, b.fmul(scale, token), b.extract_value(acc, i)), i)
        return acc

    return operation(tile.F, (tile.F, tile.I, *[i64] * 5), emit)
