"""What this machine can do at best: reading memory, float32 multiply-adds, int8 dot products.

    python bench/limits.py [--json] [--threads 1 2]

Measured by loops that Numba compiles for the very processor, in its widest vectors. A kernel's rate means little
without these: decode is bound by the reading, a long prompt by the products. Of opsin it knows how ARM is asked what it
can do, for LLVM does not ask.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from opsin.ops.cpu.arm import with_system_words

READ_BYTES = 1 << 30  # far beyond any cache
READ_STREAMS = 8
SECONDS = 0.1  # aimed length of one run
RUNS = 7

Body = Callable[[ir.IRBuilder, ir.Value, int, ir.Value], ir.Value]


@dataclass(frozen=True)
class Dot:
    """An instruction that adds products of bytes to int32 lanes, as inline assembly: so many products a lane."""

    name: str
    bits: int
    assembly: str
    constraints: str
    products: int = 4


# The assembler of inline assembly refuses what LLVM does not know of this processor.
_ALLOWED = ".arch_extension {}\n"
_ARM_OPERANDS = "${0}.4s, ${1}.16b, ${2}.16b"
DOTS = (
    Dot("avx512vnni", 512, "vpdpbusd $2, $1, $0", "=v,v,v,0"),
    Dot("avxvnni", 256, "{vex} vpdpbusd $2, $1, $0", "=x,x,x,0"),
    Dot("i8mm", 128, f"{_ALLOWED.format('i8mm')}smmla {_ARM_OPERANDS}", "=w,w,w,0", products=8),
    Dot("dotprod", 128, f"{_ALLOWED.format('dotprod')}sdot {_ARM_OPERANDS}", "=w,w,w,0"),
)


@dataclass(frozen=True)
class Limits:
    """Rates by thread count. GOP/s count a multiply and an add as two, so GFLOP/s and int8 GOP/s compare."""

    cpu: str
    vector_bits: int
    dot: str
    read_gb_per_second: dict[int, float]
    float32_gflop_per_second: dict[int, float]
    int8_gop_per_second: dict[int, float]


def measure(threads: tuple[int, ...] = (1, 2)) -> Limits:
    """Measure everything at each count of `threads`."""
    llvm.initialize_native_asmparser()  # for the inline assembly
    bits, dot = _vector_bits(), find_dot()
    return Limits(
        cpu=llvm.get_host_cpu_name(),
        vector_bits=bits,
        dot=dot.name if dot else "",
        read_gb_per_second=_read_rates(bits, threads),
        float32_gflop_per_second=_float_rates(bits, threads),
        int8_gop_per_second=_dot_rates(dot, threads) if dot else {},
    )


def find_dot() -> Dot | None:
    """The quickest that this processor has."""
    features = with_system_words(llvm.get_host_cpu_features())
    return next((dot for dot in DOTS if features.get(dot.name)), None)


def float_peak(threads: int) -> float:
    """GFLOP/s of float32 multiply-adds alone."""
    return _float_rates(_vector_bits(), (threads,))[threads]


def _vector_bits() -> int:
    features = with_system_words(llvm.get_host_cpu_features())
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


def _read_rates(bits: int, threads: tuple[int, ...]) -> dict[int, float]:
    lanes = ir.VectorType(ir.IntType(64), bits // 64)
    stride = READ_STREAMS * bits // 8

    def body(b: ir.IRBuilder, total: ir.Value, stream: int, address: ir.Value) -> ir.Value:
        at = b.add(address, ir.Constant(ir.IntType(64), stream * bits // 8))
        return b.add(total, _load(b, b.inttoptr(at, lanes.as_pointer())))

    kernel = _compile(lanes, READ_STREAMS, stride, body)
    memory = np.ones(READ_BYTES, np.uint8)  # written, so that every page exists
    rates = {}
    for count in threads:
        share = READ_BYTES // count // stride
        work = [(memory.ctypes.data + i * share * stride, share) for i in range(count)]
        rates[count] = share * stride * count / _best_seconds(kernel, work) / 1e9
    return rates


def _float_rates(bits: int, threads: tuple[int, ...]) -> dict[int, float]:
    lanes = ir.VectorType(ir.FloatType(), bits // 32)
    factor = ir.Constant(lanes, [0.5] * lanes.count)
    signature = ir.FunctionType(lanes, [lanes] * 3)

    def body(b: ir.IRBuilder, total: ir.Value, _: int, address: ir.Value) -> ir.Value:
        fma = b.module.declare_intrinsic(f"llvm.fma.v{lanes.count}f32", (), signature)
        return b.call(fma, [total, factor, factor])

    return _peak(lanes, 12 if bits == 512 else 10, body, 2 * lanes.count, threads)


def _dot_rates(dot: Dot, threads: tuple[int, ...]) -> dict[int, float]:
    lanes = ir.VectorType(ir.IntType(32), dot.bits // 32)
    ones = ir.Constant(lanes, [0x01010101] * lanes.count)
    assembly = ir.InlineAsm(ir.FunctionType(lanes, [lanes] * 3), dot.assembly, dot.constraints)

    def body(b: ir.IRBuilder, total: ir.Value, _: int, address: ir.Value) -> ir.Value:
        return b.call(assembly, [ones, ones, total])

    return _peak(lanes, 12 if dot.bits == 512 else 10, body, 2 * dot.products * lanes.count, threads)


def _peak(
    lanes: ir.VectorType, accumulators: int, body: Body, operations: int, threads: tuple[int, ...]
) -> dict[int, float]:
    """GOP/s of a loop of `accumulators` independent instructions that do `operations` each."""
    kernel = _compile(lanes, accumulators, 0, body)
    rounds = 1 << 20
    rounds = int(rounds * SECONDS / _best_seconds(kernel, [(0, rounds)]))
    each = rounds * accumulators * operations
    return {n: each * n / _best_seconds(kernel, [(0, rounds)] * n) / 1e9 for n in threads}


def _compile(lanes: ir.VectorType, accumulators: int, stride: int, body: Body) -> Any:
    """A function (address, rounds, out): each round runs `body` on every accumulator, then moves on by `stride`."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba is not typed
    def loop(typing: Any, address: Any, rounds: Any, out: Any) -> Any:
        def emit(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
            # The sums start from memory: equal constants would let LLVM fold the accumulators into one.
            step = lanes.count * 8
            slots = [b.add(args[2], ir.Constant(ir.IntType(64), i * step)) for i in range(accumulators)]
            slots = [b.inttoptr(slot, lanes.as_pointer()) for slot in slots]
            totals = [cgutils.alloca_once_value(b, _load(b, slot)) for slot in slots]
            place = cgutils.alloca_once_value(b, args[0])
            with cgutils.for_range(b, args[1]):
                here = b.load(place)
                for i, total in enumerate(totals):
                    b.store(body(b, b.load(total), i, here), total)
                b.store(b.add(here, ir.Constant(here.type, stride)), place)
            for slot, total in zip(slots, totals, strict=True):
                b.store(b.load(total), slot).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), emit

    @njit(nogil=True)  # type: ignore[untyped-decorator]
    def run(address: int, rounds: int, out: int) -> None:
        loop(address, rounds, out)

    run.compile((types.int64, types.int64, types.int64))
    return run


def _load(b: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    loaded = b.load(pointer)
    loaded.align = 1
    return loaded


def _best_seconds(kernel: Any, work: list[tuple[int, int]]) -> float:
    """Shortest of RUNS runs, each with one thread for every (address, rounds): a limit is what was reached once."""
    out = np.zeros((len(work), 4096), np.uint8)
    return min(_seconds(kernel, work, out) for _ in range(RUNS))


def _seconds(kernel: Any, work: list[tuple[int, int]], out: np.ndarray) -> float:
    start = threading.Barrier(len(work) + 1)
    spans: list[tuple[float, float]] = []

    def one(address: int, rounds: int, place: int) -> None:
        start.wait()
        began = time.perf_counter()
        kernel(address, rounds, place)
        spans.append((began, time.perf_counter()))

    team = [
        threading.Thread(target=one, args=(address, rounds, out[i].ctypes.data))
        for i, (address, rounds) in enumerate(work)
    ]
    for member in team:
        member.start()
    start.wait()
    for member in team:
        member.join()
    return max(end for _, end in spans) - statistics.median(began for began, _ in spans)


def lines(limits: Limits) -> list[str]:
    """The limits as Markdown rows."""
    rows = [
        f"| processor as LLVM names it | {limits.cpu}, {limits.vector_bits}-bit vectors |",
        _row("memory read, GB/s", limits.read_gb_per_second),
        _row("float32 multiply-add peak, GFLOP/s", limits.float32_gflop_per_second),
    ]
    if limits.dot:
        rows.append(_row(f"int8 dot peak ({limits.dot}), GOP/s", limits.int8_gop_per_second))
    return rows


def _row(name: str, rates: dict[int, float]) -> str:
    values = ", ".join(f"{rate:.{0 if rate >= 100 else 1}f} ({n} thread{'s'[: n > 1]})" for n, rate in rates.items())
    return f"| {name} | {values} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, min(2, os.cpu_count() or 1)])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    limits = measure(tuple(dict.fromkeys(args.threads)))
    print(json.dumps(asdict(limits)) if args.json else "\n".join(lines(limits)))


if __name__ == "__main__":
    main()
