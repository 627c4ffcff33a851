"""Python functions to machine code: Numba types and lowers them, LLVM makes objects for one CPU.

Imported only when a kernel must be compiled.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import _dynfunc, types
from numba.core import config as numba_config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.types.functions import BaseFunction

from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.isa import Isa
from opsin.ops.cpu.kernels.shared import OPTIONS
from opsin.ops.cpu.simd import Simd

_SIMD: dict[Isa, Simd] = {}


def compile_object(kernel: Kernel, isa: Isa) -> tuple[str, bytes]:
    """Symbol and relocatable object of a kernel."""
    symbol, text = llvm_text(kernel, isa)
    module = llvm.parse_assembly(text)
    return name_alone(module, symbol, kernel), isa.target_machine().emit_object(module)


def name_alone(module: llvm.ModuleRef, symbol: str, kernel: Kernel) -> str:
    """Give the kernel a name that no other has, and hide everything else in the module.

    Numba numbers its names a process; objects of two processes meet in one cache, and the loader takes the first
    of equal names: without this, one kernel would run another's code.
    """
    name = f"opsin_{kernel.digest}"
    for value in (*module.functions, *module.global_variables):
        if value.is_declaration:
            continue
        if value.name == symbol:
            value.name = name
        else:
            value.linkage = "internal"
    return name


def foreign_object(kernel: Kernel, isa: Isa) -> tuple[str, bytes]:
    """As `compile_object`, also for a CPU that is not this one: the instructions that it would compile itself."""
    symbol, text = llvm_text(kernel, isa, foreign=True)
    module = llvm.parse_assembly(text)
    return name_alone(module, symbol, kernel), isa.target_machine().emit_object(module)


def assembly(kernel: Kernel, isa: Isa) -> str:
    """Assembly text of a kernel, also for a CPU that is not this one."""
    module = llvm.parse_assembly(llvm_text(kernel, isa, foreign=True)[1])
    return isa.target_machine().emit_assembly(module)


def llvm_text(kernel: Kernel, isa: Isa, *, foreign: bool = False) -> tuple[str, str]:
    """Symbol and optimised LLVM code of a kernel; `foreign`: for a CPU that need not be this one."""
    if foreign:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    function = build(kernel, isa)
    count = function.__code__.co_argcount
    if not foreign:  # Numba's own passes see the CPU that we compile for: read when its first code library is made
        numba_config.CPU_NAME, numba_config.CPU_FEATURES = isa.cpu, isa.features
    compiled = numba.njit(function, **OPTIONS)
    with _no_machine_code(), _no_collector():
        compiled.compile((types.int64,) * count)
    result = next(iter(compiled.overloads.values()))
    by_hand = getattr(_module(kernel), "BY_HAND", False)
    _optimise(result.library, result.fndesc.llvm_func_name, by_hand, isa.target_machine())
    text = result.library.get_llvm_str()
    if foreign:  # functions that name this CPU
        text = "\n".join(line for line in text.splitlines() if "target-cpu" not in line)
    return result.fndesc.llvm_func_name, text


def build(kernel: Kernel, isa: Isa) -> Callable[..., Any]:
    """The kernel's Python function, over the vocabulary of an instruction set."""
    if isa not in _SIMD:
        _SIMD[isa] = Simd(isa)
    function: Callable[..., Any] = _module(kernel).make(_SIMD[isa], **dict(kernel.options))
    return function


def _module(kernel: Kernel) -> Any:
    return importlib.import_module(f"opsin.ops.cpu.kernels.{kernel.module}")


def _optimise(library: Any, symbol: str, by_hand: bool, target: llvm.TargetMachine) -> None:
    """The whole kernel at once, all its functions known to be its own. `by_hand`: its loops are as they should be."""
    module = library._final_module
    module.triple, module.data_layout = target.triple, str(target.target_data)
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=2 if by_hand else 3)
    options.slp_vectorization = False
    options.loop_vectorization = options.loop_unrolling = not by_hand
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)


@contextmanager
def _no_machine_code() -> Iterator[None]:
    """Let Numba stop at LLVM code: it is optimised here, once, and its object made for the CPU that is meant.

    Numba would optimise each function with all that it calls, so the innermost as often as calls are deep. And it
    would make machine code of each, for this machine: the work twice over, and the end of the process where the code
    holds an instruction that this CPU lacks.
    """

    def finish(library: Any) -> None:
        library._finalize_dynamic_globals()
        library._finalized = True

    def stand_in(context: Any, library: Any, description: Any, environment: Any) -> Any:
        library._ensure_finalized()
        return _dynfunc.make_function(description.lookup_module(), "kernel", "", 0, environment, (library,))

    changes: list[tuple[Any, str, Any]] = [
        (JITCodeLibrary, "_finalize_final_module", finish),
        (JITCodeLibrary, "_optimize_final_module", lambda library: None),
        (CPUContext, "get_executable", stand_in),
        (BaseFunction, "get_call_type", _remembered(BaseFunction.get_call_type)),
    ]
    with global_compiler_lock:
        own = [getattr(kind, name) for kind, name, _ in changes]
        for kind, name, change in changes:
            setattr(kind, name, change)
        try:
            yield
        finally:
            for (kind, name, _), value in zip(changes, own, strict=True):
                setattr(kind, name, value)


def _remembered(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """Types of operations by those of their arguments: Numba would try thirty definitions of + for every +."""
    known: dict[Any, Any] = {}

    def get_call_type(function: Any, context: Any, args: Any, kws: Any) -> Any:
        key = (function, tuple(args), tuple(sorted(kws.items())))
        if key not in known:
            known[key] = resolve(function, context, args, kws)
        return known[key]

    return get_call_type


@contextmanager
def _no_collector() -> Iterator[None]:
    """Numba makes objects by the million and drops few: Python's collector takes a sixth of the time for nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
