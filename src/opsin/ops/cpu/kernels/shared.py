"""What kernels share: how their inner functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

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


def _for_all_values(compiled: Any) -> Callable[..., Any]:
    """Let Numba compile one function for a type: it would make one more for each constant that callers give."""
    resolve = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return resolve([numba.types.unliteral(a) for a in args], {k: numba.types.unliteral(a) for k, a in kws.items()})

    compiled.get_call_template = get_call_template
    function: Callable[..., Any] = compiled
    return function
