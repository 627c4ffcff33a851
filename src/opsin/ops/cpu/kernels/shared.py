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
    compiled: Callable[..., Any] = numba.njit(function, **OPTIONS)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of an inner loop: LLVM must not make a call of it, which would pass its tile through memory."""
    compiled: Callable[..., Any] = numba.njit(function, forceinline=True, **OPTIONS)
    return compiled
