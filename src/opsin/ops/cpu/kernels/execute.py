"""The executor: every thread of the team walks through a program's operations.

A program is an array of entries (see `ops/cpu/cells.py`). Threads take chunks of an operation's items by an
atomic ticket. What the next operation depends on is the items that are done, not who did them: a thread that
the system has put aside holds up the others only when it holds a chunk, and finds its way back later, since
tickets carry the epoch (which run of which program) in their high half. Waiting spins, then yields the
processor, then sleeps until woken. Stopping and errors skip the kernels of what is left, nothing else.

Every word that threads share is read and written by sequentially consistent atomics, so that a CPU that reorders
memory (ARM) sees what x86 sees: who finds the epoch in GO finds what was written before it, and who is about to sleep
has told so before it looks at its word for the last time. Only Python's own writes are plain: see SETTLE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from opsin.ops.cpu import cells
from opsin.ops.cpu.kernels.shared import emit_call, jit
from opsin.ops.cpu.simd import I32, I64, Simd, operation, pointer

_LOW = 0xFFFFFFFF


def _atomic_add(b: Any, address: Any, value: Any) -> Any:
    return b.atomic_rmw("add", pointer(b, address, I64), value, "seq_cst")


def _atomic_load(b: Any, address: Any) -> Any:
    return b.load_atomic(pointer(b, address, I64), "seq_cst", 8)


def _atomic_store(b: Any, address: Any, value: Any) -> None:
    b.store_atomic(value, pointer(b, address, I64), "seq_cst", 8)


def _fence(b: Any) -> None:
    b.fence("seq_cst")


def _exchange(b: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write `value` if `expected` stands there; what stood there."""
    return b.extract_value(b.cmpxchg(pointer(b, address, I64), expected, value, "seq_cst", "seq_cst"), 0)


def _yield_processor(b: Any, function: Any) -> None:
    b.call(pointer(b, function, ir.FunctionType(I32, [])), [])


def _futex(b: Any, function: Any, number: Any, address: Any, action: Any, value: Any, limit: Any) -> None:
    """futex(address, action, value, address of a struct timespec or 0)."""
    kind = ir.FunctionType(I64, [I64], var_arg=True)
    zero = ir.Constant(I64, 0)
    b.call(pointer(b, function, kind), [number, address, action, value, limit, zero, zero])


def _nap(b: Any, function: Any, request: Any) -> None:
    """nanosleep(address, nothing), or Sleep(milliseconds), which takes no more than the first."""
    kind = ir.FunctionType(I32, [I64, I64])
    b.call(pointer(b, function, kind), [request, ir.Constant(I64, 0)])


def make(simd: Simd) -> Callable[..., int]:
    v, i64 = types.void, types.int64
    see, put = operation(i64, (i64,), _atomic_load), operation(v, (i64, i64), _atomic_store)
    add, fence = operation(i64, (i64, i64), _atomic_add), operation(v, (), _fence)
    wait_until, wake = _waiting(simd, see, add)
    walk = _walk(simd, see, _operation(simd, see, put, add, wake), wait_until)

    def execute(team: int, thread: int, seen: int, role: int) -> int:
        """Start the team's program and see it done (LEAD), help until told to leave (WORK), or tell so (DISMISS).

        SETTLE lets everybody see what this thread wrote so far before what it writes next. `seen` is the epoch at
        which a worker joined.
        """
        if role == cells.SETTLE:
            fence()
            return 0
        if role != cells.WORK:
            seen = add(team + cells.GO, 1)
            wake(team, team + cells.GO)
            if role == cells.DISMISS:
                return 0
            walk(team, thread, seen + 1)
            return 0
        inside = team + cells.INSIDE + thread * cells.LINE
        while True:
            wait_until(team, team + cells.GO, seen + 1, 0)
            if see(team + cells.LEAVE) != 0:
                return 0
            seen = see(team + cells.GO)
            put(inside, seen)
            walk(team, thread, seen)
            put(inside, 0)

    return execute


def _pause(simd: Simd) -> Callable[..., None]:
    """A hint that this thread spins, on CPUs that have one."""

    def emit(b: Any) -> None:
        nothing = ir.FunctionType(ir.VoidType(), [])
        if "x86" in simd.isa.triple:
            b.call(b.module.declare_intrinsic("llvm.x86.sse2.pause", (), nothing), [])
        elif "aarch64" in simd.isa.triple or "arm64" in simd.isa.triple:
            hint = ir.FunctionType(ir.VoidType(), [I32])
            b.call(b.module.declare_intrinsic("llvm.aarch64.hint", (), hint), [I32(1)])  # yield

    return emit


def _waiting(simd: Simd, see: Any, add: Any) -> Any:
    v, i64, at = types.void, types.int64, simd.i64_at
    pause, give_way = operation(v, (), _pause(simd)), operation(v, (i64,), _yield_processor)
    futex, nap = operation(v, (i64,) * 6, _futex), operation(v, (i64, i64), _nap)

    @jit
    def wait_until(team: int, word: int, wanted: int, limit: int) -> None:
        """Return when the word at `word` has reached `wanted`. `limit`: of a sleep, or 0."""
        spins, k = at(team + cells.SPINS), 0
        while see(word) < wanted:
            k += 1
            if k < spins:
                pause()
            elif k < spins + cells.YIELDS:
                give_way(at(team + cells.YIELD_FUNCTION))
            elif at(team + cells.FUTEX_NUMBER) != 0:
                add(team + cells.SLEEPERS, 1)
                now = see(word)
                if now < wanted:
                    futex(
                        at(team + cells.SYSCALL_FUNCTION), at(team + cells.FUTEX_NUMBER), word, 128, now & _LOW, limit
                    )
                add(team + cells.SLEEPERS, -1)
            else:
                nap(at(team + cells.NAP_FUNCTION), at(team + cells.NAP))

    @jit
    def wake(team: int, word: int) -> None:
        """Wake whoever sleeps on a word; called after the word has reached what they wait for."""
        if see(team + cells.SLEEPERS) != 0 and at(team + cells.FUTEX_NUMBER) != 0:
            futex(at(team + cells.SYSCALL_FUNCTION), at(team + cells.FUTEX_NUMBER), word, 129, 0x7FFFFFFF, 0)

    return wait_until, wake


def _operation(simd: Simd, see: Any, put: Any, add: Any, wake: Any) -> Any:
    at, i64 = simd.i64_at, types.int64
    call_kernel = operation(i64, (i64,) * 5, emit_call)
    exchange = operation(i64, (i64,) * 3, _exchange)

    @jit
    def run_operation(team: int, entry: int, index: int, thread: int, epoch: int) -> int:
        """Take chunks of the operation's items until none is left. 0 when this epoch is over."""
        grain, shares = at(entry + cells.ENTRY_GRAIN), at(team + cells.THREADS) * cells.SHARES
        ticket = see(entry + cells.ENTRY_TICKET)
        items = at(at(entry + cells.ENTRY_ITEMS))  # after the ticket: it holds as long as the ticket's epoch
        while True:
            if ticket >> 32 != epoch:
                return 0
            first = ticket & _LOW
            if first >= items:
                return 1
            # Large chunks first, so that memory is read in long runs; small ones last, so that all end together.
            chunk = max(grain, (items - first) // shares)
            found = exchange(entry + cells.ENTRY_TICKET, ticket, ticket + chunk)
            if found != ticket:
                ticket = found
                continue
            last = min(first + chunk, items)
            if see(team + cells.STOP) | see(team + cells.STATUS) == 0:
                kernel = at(entry + cells.ENTRY_KERNEL)
                error = call_kernel(kernel, at(entry + cells.ENTRY_ARGS), first, last, thread)
                if error != 0:
                    exchange(team + cells.STATUS, 0, error + (index << 32))
            else:
                put(team + cells.SKIPPED, 1)
            if (add(entry + cells.ENTRY_DONE, last - first) & _LOW) + last - first == items:
                wake(team, entry + cells.ENTRY_DONE)
            ticket = see(entry + cells.ENTRY_TICKET)

    return run_operation


def _walk(simd: Simd, see: Any, run_operation: Any, wait_until: Any) -> Any:
    at = simd.i64_at

    @jit
    def walk(team: int, thread: int, epoch: int) -> None:
        """Through the program, from stage to stage; out at once when the others are an epoch ahead."""
        program = see(team + cells.PROGRAM)
        for i in range(at(program)):
            entry = program + cells.HEAD_BYTES + i * cells.ENTRY_BYTES
            if run_operation(team, entry, i, thread, epoch) == 0:
                return
            stage = at(entry + cells.ENTRY_STAGE)
            if stage >= 0:
                for j in range(stage, i + 1):
                    before = program + cells.HEAD_BYTES + j * cells.ENTRY_BYTES
                    items = at(at(before + cells.ENTRY_ITEMS))
                    # Limited: the low half, which futex compares, may be what it was when the next run has begun, in
                    # which nobody may come to wake who falls asleep then.
                    wait_until(team, before + cells.ENTRY_DONE, (epoch << 32) + items, team + cells.SLEEP_TIME)

    return walk
