"""Rows of x for `dense`: [block][stretch][panel][input][row], so that products read memory from front to back.

A block is DENSE_PANELS panels of `dense_rows` rows, a stretch DENSE_INPUTS inputs, or all. Items are panels of all
blocks. Arguments: x, bytes a row of x, rows, inputs, to.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.kernels.shared import jit
from opsin.ops.cpu.layout import DENSE_PANELS, dense_rows, dense_stretch
from opsin.ops.cpu.panel import transpose
from opsin.ops.cpu.simd import Simd

X, X_ROW, ROWS, INPUTS, TO = (8 * i for i in range(5))


def make(simd: Simd) -> Any:
    at, lanes, rows = simd.i64_at, simd.lanes, dense_rows(simd.lanes, simd.isa.registers)
    turn, stretch_of = transpose(simd, keep=rows), jit(dense_stretch)

    def turn_rows(args: int, first: int, last: int, thread: int) -> int:
        stride, inputs = at(args + X_ROW), at(args + INPUTS)
        size = stretch_of(inputs)
        stretches, piece = (inputs + size - 1) // size, 4 * size * rows
        for panel in range(first, last):
            x = at(args + X) + panel * rows * stride
            block, place = panel // DENSE_PANELS, panel % DENSE_PANELS
            left = at(args + ROWS) - panel * rows
            for stretch in range(stretches):
                to = at(args + TO) + ((block * stretches + stretch) * DENSE_PANELS + place) * piece
                begin = stretch * size
                for k in range(begin, min(begin + size, inputs), lanes):
                    turn(x + 4 * k, stride, left, inputs - k, to + 4 * (k - begin) * rows, 4 * rows)
        return 0

    return turn_rows
