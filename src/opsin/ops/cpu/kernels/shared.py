"""What kernels share: how their inner functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir

from opsin.ops.cpu.simd import I32, I64, pointer

# No exceptions, no fast-math, no Python wrapper, no reference counts: for kernels and their inner functions alike.
OPTIONS = {
    "error_model": "numpy",
    "nogil": True,
    "boundscheck": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """An inner function of a kernel."""
    return _for_all_values(numba.njit(function, **OPTIONS))


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of an inner loop: LLVM must not make a call of it, which would pass its tile through memory."""
    return _for_all_values(numba.njit(function, forceinline=True, **OPTIONS))


def nothing(*arguments: int) -> None:
    """Stands where a kernel has no use for a part that others have."""


def _for_all_values(compiled: Any) -> Callable[..., Any]:
    """Let Numba compile one function for a type: it would make one more for each constant that callers give."""
    resolve = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return resolve([numba.types.unliteral(a) for a in args], {k: numba.types.unliteral(a) for k, a in kws.items()})

    compiled.get_call_template = get_call_template
    function: Callable[..., Any] = compiled
    return function


_KERNEL = ir.FunctionType(I32, [I64.as_pointer(), I64.as_pointer(), I64, I64, I64, I64])


def emit_call(b: Any, address: Any, args: Any, first: Any, last: Any, thread: Any) -> Any:
    """Call compiled code by Numba's convention; its int64 result is the kernel's error code, 0 for none."""
    with b.goto_entry_block():
        result, exception = b.alloca(I64), b.alloca(I64)
    b.store(I64(0), result)
    b.call(pointer(b, address, _KERNEL), [result, exception, args, first, last, thread])
    return b.load(result)
