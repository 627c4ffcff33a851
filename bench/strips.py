"""What few rows cost on a machine that is busy with other things: one short layer at a time, one thread, by turns.

    python bench/strips.py [--formats Q4_0 Q4_K Q6_K Q8_0 F16] [--rows 1 2 4 8 16] [--seconds 3] [--inputs 2048]

Microseconds that one strip of 32 outputs takes, weights from memory. Layers of 64 strips, each a program of its own,
so many that they fit no cache, are run with each row count in turn; a call takes a tenth of a millisecond, so most are
undisturbed. The lower quartile is printed. It says nothing of threads that share memory: for those see few_rows.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
from few_rows import arguments, head, weight

from opsin.config import from_environment
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.pack import PackedWeight
from opsin.ops.layout import STRIP

STRIPS, BYTES = 64, 160_000_000


def layers(device: Cpu, name: str, inputs: int, most: int) -> Iterator[tuple[Callable[[int], None], int]]:
    """Programs of one layer each, and the bytes of its weights."""
    size = 0
    while size < BYTES:
        ops, tape = device.record()
        x = tape.input(ops, "x", (tape.count("rows", most), inputs), "f32")
        packed = ops.pack(weight(name, STRIPS * STRIP, inputs), rounded=True)
        assert isinstance(packed, PackedWeight)
        program = tape.finish({"y": ops.linear(x, packed)})
        program.inputs["x"][...] = np.random.default_rng(0).standard_normal((most, inputs)).astype(np.float32)
        size += packed.bytes
        yield lambda rows, run=program.run: run(rows=rows), packed.bytes  # type: ignore[misc]


def line(device: Cpu, name: str, inputs: int, counts: list[int], seconds: float) -> str:
    """A row of the table: microseconds a strip, and how many single rows that is."""
    known = list(layers(device, name, inputs, max(counts)))
    times: dict[int, list[float]] = {rows: [] for rows in counts}
    runs, end = cycle(run for run, _ in known), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for rows in counts:
            for _ in range(4):  # the first of them finds what the row count before left in the caches
                run = next(runs)
                began = time.perf_counter()
                run(rows)
                times[rows].append(time.perf_counter() - began)
    cost = {rows: 1e6 * float(np.percentile(spent, 25)) / STRIPS for rows, spent in times.items()}
    cells = [f"{cost[rows]:.2f}" + (f" ({cost[rows] / cost[1]:.2f})" if rows > 1 else "") for rows in counts]
    return f"| {name} | {known[0][1] / STRIPS / cost[1] / 1e3:.1f} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--inputs", type=int, default=2048)
    args = parser.parse_args()
    counts = head(args.rows)
    device = Cpu(from_environment(), threads=1)
    for name in args.formats:
        print(line(device, name, args.inputs, counts, args.seconds), flush=True)
    device.close()


if __name__ == "__main__":
    main()
