"""How kernels are compiled: once each function, once the whole, and nothing of Numba stays changed."""

from __future__ import annotations

import gc
import sys
import types

import llvmlite.binding as llvm
import pytest
from numba.core.codegen import JITCodeLibrary
from numba.core.types.functions import BaseFunction

from opsin.config import from_environment
from opsin.ops.cpu import compiler
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.isa import choose
from opsin.ops.cpu.kernels.shared import inlined, jit


@pytest.fixture
def counting(monkeypatch):
    """A kernel whose inner functions are given constants and variables; the functions, by name."""
    inner = {}

    def make(simd):
        put = simd.put_i64

        @jit
        def add(x: int, y: int) -> int:
            return x + y

        @inlined
        def twice(x: int) -> int:
            return add(x, x) + add(x, 1) + add(2, 3)

        def kernel(args: int, first: int, last: int, thread: int) -> int:
            put(args, twice(7) + twice(first) + add(0, last))
            return 0

        inner.update(add=add, twice=twice)
        return kernel

    module = types.ModuleType("opsin.ops.cpu.kernels.counting")
    module.make = make
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return inner


def compiled() -> str:
    return compiler.llvm_text(Kernel.of("counting"), choose(from_environment()))[1]


def test_constants_make_no_functions_of_their_own(counting):
    compiled()
    assert {name: len(function.overloads) for name, function in counting.items()} == {"add": 1, "twice": 1}


def test_a_kernel_is_optimised_once_with_all_that_it_calls(counting, monkeypatch):
    seen, own = [], compiler._optimise

    def optimise(library, *given):
        seen.append(sum(not f.is_declaration for f in library._final_module.functions))
        own(library, *given)
        seen.append(sum(not f.is_declaration for f in library._final_module.functions))

    monkeypatch.setattr(compiler, "_optimise", optimise)
    text = compiled()
    assert seen == [3, 1]
    assert text.count("\ndefine ") == 1


@pytest.mark.parametrize("name", ["merge_chunks", "rows"])
def test_a_foreign_machine_would_compile_the_same(name):
    """As far as can be seen here: of this one, which is compiled for without its name."""
    kernel, isa = Kernel.of(name, **({"part": "take"} if name == "rows" else {})), choose(from_environment())
    objects = [make(kernel, isa)[1] for make in (compiler.compile_object, compiler.foreign_object)]
    parts = [llvm.ObjectFileRef.from_data(code).sections() for code in objects]
    own, foreign = ([part.data() for part in some if part.is_text()] for some in parts)
    assert own == foreign


@pytest.mark.usefixtures("counting")
def test_numba_and_the_collector_are_afterwards_as_they_were():
    places = ((JITCodeLibrary, "_optimize_final_module"), (BaseFunction, "get_call_type"))
    before = [getattr(kind, name) for kind, name in places]
    assert gc.isenabled()
    compiled()
    assert gc.isenabled()
    assert [getattr(kind, name) for kind, name in places] == before


def test_loops_of_kernels_written_by_hand_stay_as_they_are(counting, monkeypatch):
    """LLVM would make four steps of this loop one, and vectors of them."""

    def make(simd):
        at, put = simd.i64_at, simd.put_i64

        def kernel(args: int, first: int, last: int, thread: int) -> int:
            for i in range(first, last):
                put(args + 8 * i, at(args + 8 * i) * 3)
            return 0

        return kernel

    module = sys.modules["opsin.ops.cpu.kernels.counting"]
    monkeypatch.setattr(module, "make", make)
    assert compiled().count("mul ") > 1
    monkeypatch.setattr(module, "BY_HAND", True, raising=False)
    assert compiled().count("mul ") == 1
