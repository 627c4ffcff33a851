"""Products of bytes on ARM: asked of systems that this machine pretends to be."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from opsin.config import from_environment
from opsin.ops.cpu import arm, isa

sys.path.append(str(Path(__file__).parents[3] / "bench"))
import limits


class Libraries:
    """Stands for ctypes.CDLL: C libraries with one function."""

    def __init__(self, **functions):
        self.functions = functions

    def __call__(self, name):
        return type("Library", (), {name: staticmethod(function) for name, function in self.functions.items()})


def getauxval(words, more=0):
    return {"getauxval": lambda kind: {16: words, 26: more}[kind]}


def sysctlbyname(known, status=0):
    def ask(name, held, size, _new, _length):
        assert name in (b"hw.optional.arm.FEAT_DotProd", b"hw.optional.arm.FEAT_I8MM")
        ctypes.cast(held, ctypes.POINTER(ctypes.c_int))[0] = int(name in known)
        return status

    return {"sysctlbyname": ask}


def processor_features(*numbers):
    return {"IsProcessorFeaturePresent": lambda number: int(number in numbers)}


NEON = {"neon": True, "fp-armv8": True}
DOTS, BLOCKS = b"hw.optional.arm.FEAT_DotProd", b"hw.optional.arm.FEAT_I8MM"
SYSTEMS = {
    "graviton 2": ("linux", "aarch64", getauxval(1 << 20 | 1 << 1), "dotprod"),
    "graviton 3": ("linux", "aarch64", getauxval(1 << 20 | 1 << 1, 1 << 13), "i8mm"),
    "raspberry pi 4": ("linux", "aarch64", getauxval(1 << 1), ""),
    "an old C library": ("linux", "aarch64", {}, ""),
    "apple m1": ("darwin", "arm64", sysctlbyname([DOTS]), "dotprod"),
    "apple m2": ("darwin", "arm64", sysctlbyname([DOTS, BLOCKS]), "i8mm"),
    "apple says no": ("darwin", "arm64", sysctlbyname([]), ""),
    "apple does not know": ("darwin", "arm64", sysctlbyname([DOTS, BLOCKS], status=-1), ""),
    "windows": ("win32", "ARM64", processor_features(43), "dotprod"),
    "windows on a newer one": ("win32", "ARM64", processor_features(43, 66), "i8mm"),
    "another": ("freebsd14", "arm64", {}, ""),
    "x86": ("linux", "x86_64", getauxval(1 << 20, 1 << 13), ""),  # the bits mean something else there
}
TOLD = {"": [], "dotprod": ["dotprod"], "i8mm": ["dotprod", "i8mm"]}


@pytest.fixture(params=SYSTEMS)
def best(request, monkeypatch):
    """The best instruction set of a system that this machine pretends to be, or ""."""
    system, machine, functions, expected = SYSTEMS[request.param]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(ctypes, "CDLL", Libraries(**functions))
    return expected


def test_the_system_is_asked_for_what_llvm_does_not_ask(best):
    assert arm.with_system_words(NEON) == NEON | dict.fromkeys(TOLD[best], True)


@pytest.mark.parametrize("by_llvm", [NEON, {}], ids=["linux", "a system where LLVM knows nothing"])
def test_kernels_are_chosen_by_it(best, by_llvm, monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict(by_llvm))
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "generic")
    isa.choose.cache_clear()
    try:
        found = isa.choose(replace(from_environment(), isa=None, cpu=None))
    finally:
        isa.choose.cache_clear()
    assert found.name == (best or "portable")
    assert [name for name in ("dotprod", "i8mm") if f"+{name}" in found.features] == TOLD[best]


def test_what_a_machine_can_do_at_best_is_measured_by_it(best, monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict(NEON))
    found = limits.find_dot()
    assert (found.name if found else "") == best
