"""Products of bytes on ARM: asked of systems that this machine pretends to be."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace

import llvmlite.binding as llvm
import pytest

from opsin.config import from_environment
from opsin.ops.cpu import arm, isa


class Libraries:
    """Stands for ctypes.CDLL: C libraries with one function."""

    def __init__(self, **functions):
        self.functions = functions

    def __call__(self, name):
        return type("Library", (), {name: staticmethod(function) for name, function in self.functions.items()})


def getauxval(bits):
    def ask(kind):
        return bits if kind == 16 else 0

    return {"getauxval": ask}


def sysctlbyname(value, status=0):
    def ask(name, held, size, _new, _length):
        assert name == b"hw.optional.arm.FEAT_DotProd"
        ctypes.cast(held, ctypes.POINTER(ctypes.c_int))[0] = value
        return status

    return {"sysctlbyname": ask}


NEON = {"neon": True, "fp-armv8": True}
SYSTEMS = {
    "graviton": ("linux", "aarch64", getauxval(1 << 20 | 1 << 1), True),
    "raspberry pi 4": ("linux", "aarch64", getauxval(1 << 1), False),
    "an old C library": ("linux", "aarch64", {}, False),
    "apple": ("darwin", "arm64", sysctlbyname(1), True),
    "apple says no": ("darwin", "arm64", sysctlbyname(0), False),
    "apple does not know": ("darwin", "arm64", sysctlbyname(1, status=-1), False),
    "windows": ("win32", "ARM64", {"IsProcessorFeaturePresent": lambda number: int(number == 43)}, True),
    "another": ("freebsd14", "arm64", {}, False),
    "x86": ("linux", "x86_64", getauxval(1 << 20), False),  # the bit means something else there
}


@pytest.fixture(params=SYSTEMS)
def has_dotprod(request, monkeypatch):
    system, machine, functions, expected = SYSTEMS[request.param]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(ctypes, "CDLL", Libraries(**functions))
    return expected


def test_the_system_is_asked_for_what_llvm_does_not_ask(has_dotprod):
    assert arm.with_system_words(NEON) == (NEON | {"dotprod": True} if has_dotprod else NEON)


def test_kernels_are_chosen_by_it(has_dotprod, monkeypatch):
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict(NEON))
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "neoverse-n1")
    isa.choose.cache_clear()
    try:
        found = isa.choose(replace(from_environment(), isa=None, cpu=None))
    finally:
        isa.choose.cache_clear()
    assert found.name == ("dotprod" if has_dotprod else "portable")
    assert ("+dotprod" in found.features) is has_dotprod
