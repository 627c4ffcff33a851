"""Attention over pages beside the machine's multiply-add peak: a prompt's step, and one row of decode.

    python bench/attend.py [--kinds f16 q8_0 f32] [--depth 4096] [--heads 32 8 64] [--rows 512]

Work is counted as 4 x width floating-point operations a query head and key that it sees, whatever the kernel does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import limits
import numpy as np

from opsin.config import from_environment
from opsin.ops import PAGE, Array, Pages, Reads
from opsin.ops.cpu import Cpu, Operations

THREADS = 2
RUNS = 7


def best_seconds(run: Callable[[], object], runs: int = RUNS) -> float:
    """Shortest of some runs, after one that warms up."""
    run()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def filled(ops: Operations, kind: str, heads: int, width: int, rows: int) -> tuple[Pages, Array]:
    """Pages with `rows` random keys and values, and their table."""
    count = -(-rows // PAGE)
    pages = ops.pages(layers=1, heads=heads, width=width, count=count, kind=kind)  # type: ignore[arg-type]
    order = np.random.default_rng(1).permutation(count).astype(np.int32)
    places = np.arange(rows)
    slots = (order[places // PAGE] * PAGE + places % PAGE).astype(np.int32)
    x = ops.constant(np.random.default_rng(0).standard_normal((rows, heads, width), np.float32))
    ops.store(pages, 0, x, x, ops.constant(slots))
    return pages, ops.constant(order[None])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["f16", "q8_0", "f32"])
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--heads", type=int, nargs=3, default=[32, 8, 64], metavar=("QUERY", "KV", "WIDTH"))
    args = parser.parse_args()
    query, kv, width = args.heads
    peak = limits._float_rates(512 if _has_wide() else 256, (THREADS,))[THREADS]
    print(f"peak {peak:.0f} GFLOP/s, {THREADS} threads")
    device = Cpu(from_environment(), threads=THREADS)
    ops = device.eager()
    for kind in args.kinds:
        pages, table = filled(ops, kind, kv, width, args.depth + args.rows)
        for rows in (args.rows, 1):
            last = np.arange(args.depth, args.depth + rows, dtype=np.int32) + 1
            zeros = np.zeros(rows, np.int32)
            reads = Reads(table, *(ops.constant(a) for a in (zeros, zeros, last)))
            q = ops.constant(np.random.default_rng(2).standard_normal((rows, query, width), np.float32))
            seconds = best_seconds(lambda q=q, reads=reads, pages=pages: ops.attend(q, pages, 0, reads, scale=0.125))
            rate = 4e-9 * width * query * float(last.sum()) / seconds
            print(f"{kind:5} {rows:4} rows: {1e3 * seconds:8.2f} ms, {rate:6.1f} GFLOP/s, {rate / peak:.0%}")
    device.close()


def _has_wide() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("avx512f"))


if __name__ == "__main__":
    main()
