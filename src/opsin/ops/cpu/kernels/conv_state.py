"""A causal convolution of each channel over the rows of sequences, whose first rows see the state before them.

Part "rows": items are rows, each with the steps - 1 before it. Arguments: x, bytes a row of x, weights [steps,
channels], channels, out, bytes a row of out, then what both parts take: states of the layer [slots, steps - 1, padded],
bytes a slot, bytes a state's row, slots, starts, reads, writes, sequences (address of the count), rows (address of the
count). Part "state", afterwards: the last rows of each sequence become the state it writes. Items are sequences.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu import cells
from opsin.ops.cpu.kernels.pointwise import function
from opsin.ops.cpu.kernels.shared import inlined, jit
from opsin.ops.cpu.simd import Simd

X, X_ROW, W, CHANNELS, OUT, OUT_ROW = (8 * i for i in range(6))
STATES, SLOT, STATE_ROW, SLOTS, STARTS, READS, WRITES, SEQUENCES, ROWS = (8 * i for i in range(6, 15))


def make(simd: Simd, part: str, steps: int, activation: str = "") -> Any:
    return _rows(simd, steps, activation) if part == "rows" else _state(simd, steps)


def _rows(simd: Simd, steps: int, activation: str) -> Any:
    at, i32, fma, zero, lanes = simd.i64_at, simd.i32_at, simd.fma, simd.zero, simd.lanes
    load, store, f, bad = simd.load_part, simd.store_part, function(simd, activation or "copy"), cells.BAD_STATE

    @jit
    def row_of(args: int, row: int, begin: int, state: int, fresh: bool) -> None:
        x_row, channels = at(args + X_ROW), at(args + CHANNELS)
        first = row - steps + 1
        x, w, out = at(args + X) + first * x_row, at(args + W), at(args + OUT) + row * at(args + OUT_ROW)
        if first >= begin:
            for c in range(0, channels, lanes):
                y = zero()
                for i in range(steps):
                    y = fma(
                        load(x + i * x_row + 4 * c, channels - c), load(w + 4 * (i * channels + c), channels - c), y
                    )
                store(out + 4 * c, f(args, y, y), channels - c)
            return
        before = begin - first  # steps that the state has
        state += (steps - 1 - before) * at(args + STATE_ROW)
        for c in range(0, channels, lanes):
            y = zero()
            for i in range(steps):
                if i < before and fresh:
                    continue
                source = state + i * at(args + STATE_ROW) if i < before else x + i * x_row
                y = fma(load(source + 4 * c, channels - c), load(w + 4 * (i * channels + c), channels - c), y)
            store(out + 4 * c, f(args, y, y), channels - c)

    def conv_state(args: int, first: int, last: int, thread: int) -> int:
        sequences = at(at(args + SEQUENCES))
        for sequence in range(sequences):
            begin, end = i32(at(args + STARTS) + 4 * sequence), i32(at(args + STARTS) + 4 * sequence + 4)
            if end > at(at(args + ROWS)):
                return bad
            read = i32(at(args + READS) + 4 * sequence)
            if begin < end and read >= at(args + SLOTS):
                return bad
            state = at(args + STATES) + max(read, 0) * at(args + SLOT)
            for row in range(max(begin, first), min(end, last)):
                row_of(args, row, begin, state, read < 0)
        return 0

    return conv_state


def _state(simd: Simd, steps: int) -> Any:
    at, i32, load, store = simd.i64_at, simd.i32_at, simd.load_part, simd.store_part
    zero, lanes, bad = simd.zero, simd.lanes, cells.BAD_STATE

    @inlined
    def copy(source: int, to: int, width: int) -> None:
        for i in range(0, width, lanes):
            store(to + 4 * i, load(source + 4 * i, width - i) if source != 0 else zero(), width - i)

    def conv_state(args: int, first: int, last: int, thread: int) -> int:
        size, slots = at(args + STATE_ROW), at(args + SLOTS)
        for sequence in range(first, last):
            begin, end = i32(at(args + STARTS) + 4 * sequence), i32(at(args + STARTS) + 4 * sequence + 4)
            read, write = i32(at(args + READS) + 4 * sequence), i32(at(args + WRITES) + 4 * sequence)
            if begin >= end:
                continue
            if read >= slots or write < 0 or write >= slots:
                return bad
            before = at(args + STATES) + read * at(args + SLOT)
            after = at(args + STATES) + write * at(args + SLOT)
            for i in range(steps - 1):  # in order: where it writes what it reads, rows move to the front
                row = end - steps + 1 + i
                source = at(args + X) + row * at(args + X_ROW)
                if row < begin:
                    source = before + (row - begin + steps - 1) * size if read >= 0 else 0
                copy(source, after + i * size, at(args + CHANNELS))
        return 0

    return conv_state
