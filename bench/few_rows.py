"""What few rows cost in terms of one: linear layers of 1B shapes, by turns within milliseconds, one table a run.

    python bench/few_rows.py [--formats Q4_0 Q4_K Q6_K Q8_0 F16] [--rows 1 2 4 8 16] [--seconds 3]

Layers of 2048 (q, k, v as 3072; out; gate and up as 16384; down from 8192), so many that the weights fit no cache, are
recorded as one program and run with so many rows. A cost is the median of rounds, each beside the same round's one row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from opsin.config import from_environment
from opsin.ops import Raw
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.pack import PackedWeight
from opsin.quants import BY_NAME

THREADS, WIDTH, HIDDEN, BYTES = 2, 2048, 8192, 128 << 20  # BYTES: far beyond the last cache
SHAPES = ((3072, WIDTH), (WIDTH, WIDTH), (2 * HIDDEN, WIDTH), (WIDTH, HIDDEN))


def weight(name: str, outputs: int, inputs: int) -> Raw:
    """Random weights of one stretch of blocks, again and again."""
    kind = BY_NAME[name]
    assert kind.encode is not None
    values = np.random.default_rng(1).standard_normal((1024, kind.elements)).astype(np.float32) / inputs**0.5
    blocks = np.asarray(kind.encode(values)).reshape(1024, -1)
    count = inputs // kind.elements

    def read(first: int, last: int, into: np.ndarray) -> None:
        into[:] = blocks[np.arange(first * count, last * count) * 7 % 1024].reshape(-1)

    return Raw(f"{name} {outputs}x{inputs}", kind.id, (outputs, inputs), read)


def step(device: Cpu, name: str, most: int) -> tuple[Callable[[int], None], int]:
    """A program over layers of one format, and the bytes of its weights."""
    ops, tape = device.record()
    x = tape.input(ops, "x", (tape.count("rows", most), WIDTH), "f32")
    size, y = 0, x
    while size < BYTES:
        for outputs, inputs in SHAPES:
            packed = ops.pack(weight(name, outputs, inputs), rounded=True)  # as models' are
            assert isinstance(packed, PackedWeight)
            y = ops.linear(y[:, :inputs], packed)
            size += packed.block.data.nbytes
    program = tape.finish({"y": y})
    program.inputs["x"][...] = np.random.default_rng(0).standard_normal((most, WIDTH)).astype(np.float32)
    return lambda rows: program.run(rows=rows), size


def timed(run: Callable[[int], None], counts: list[int], seconds: float) -> dict[int, list[float]]:
    """Seconds of each row count, round by round."""
    times: dict[int, list[float]] = {rows: [] for rows in counts}
    for rows in counts:
        run(rows)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for rows in counts:
            began = time.perf_counter()
            run(rows)
            times[rows].append(time.perf_counter() - began)
    return times


def line(name: str, times: dict[int, list[float]], size: int) -> str:
    """A row of the table: milliseconds, and how many single rows that is."""
    one = statistics.median(times[1])
    cells = []
    for rows, spent in times.items():
        ratio = statistics.median(t / first for t, first in zip(spent, times[1], strict=True))
        cells.append(f"{1e3 * statistics.median(spent):.2f}" + (f" ({ratio:.2f})" if rows > 1 else ""))
    return f"| {name} | {size / one / 1e9:.1f} | " + " | ".join(cells) + " |"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Options of a table of formats and row counts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=["Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=3)
    return parser


def head(asked: list[int]) -> list[int]:
    """Print the table's head; the row counts of its columns, of which one row is the first."""
    counts = [1, *(rows for rows in asked if rows != 1)]
    print("| format | GB/s of one row | " + " | ".join(f"{rows}" for rows in counts) + " |")
    print("|---|---:|" + "---:|" * len(counts))
    return counts


def main() -> None:
    """Measure and print."""
    args = arguments(__doc__).parse_args()
    counts = head(args.rows)
    device = Cpu(from_environment(), threads=THREADS)
    for name in args.formats:
        run, size = step(device, name, max(counts))
        print(line(name, timed(run, counts, args.seconds), size), flush=True)
    device.close()


if __name__ == "__main__":
    main()
