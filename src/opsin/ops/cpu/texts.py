"""Runs the kernels of texts: one thread, whoever calls, and without the lock of the interpreter.

It knows nothing of vocabularies; `opsin.text` says what the kernels are given.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
import numpy.typing as npt

from opsin.config import Config
from opsin.ops.cpu.code import Code, Kernel, Notice
from opsin.ops.cpu.isa import choose
from opsin.ops.cpu.words import words

_CALL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

# Every kernel that vocabularies ask for.
KERNELS: Final = (
    Kernel.of("index_texts", part="texts"),
    Kernel.of("index_texts", part="pairs"),
    Kernel.of("cut_text", by="pattern"),
    Kernel.of("cut_text", by="joints"),
    Kernel.of("merge_texts", unit="bytes", by="pairs", whole="no"),
    Kernel.of("merge_texts", unit="bytes", by="pairs", whole="any"),
    Kernel.of("merge_texts", unit="characters", by="pairs", whole="no"),
    Kernel.of("merge_texts", unit="characters", by="pairs", whole="newline"),
    Kernel.of("merge_texts", unit="characters", by="ranks", whole="no"),
    Kernel.of("search_texts", by="longest"),
    Kernel.of("search_texts", by="likeliest"),
    Kernel.of("rewrite_text"),
)


class TextKernels:
    """Kernels by name, from any thread. They are looked for, or compiled, when they are first run."""

    def __init__(self, config: Config, code: Code | None = None, *, notice: Notice | None = None) -> None:
        self._config = config
        self._code = code
        self._notice = notice
        self._calls: dict[Kernel, ctypes._CFunctionType] = {}

    def run(self, name: str, options: dict[str, str], *values: int | npt.NDArray[np.generic]) -> None:
        """Run a kernel. `values` are its arguments, in its order: numbers, and arrays that it reads or writes."""
        kernel = Kernel.of(name, **options)
        if kernel not in self._calls:
            self._calls[kernel] = _CALL(self._find_code().address(kernel))
        args = words(*(value if isinstance(value, int) else int(value.ctypes.data) for value in values))
        self._calls[kernel](ctypes.byref(ctypes.c_int64()), None, int(args.ctypes.data))

    def warm(self) -> None:
        """Look for all of them, or compile them, now."""
        for kernel in KERNELS:
            self._find_code().address(kernel)

    def _find_code(self) -> Code:
        if self._code is None:
            self._code = Code(choose(self._config), self._config.cache, self._notice)
        return self._code
