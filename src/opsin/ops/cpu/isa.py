"""Instruction sets: what this CPU offers to kernels, found in Python before anything is lowered.

LLVM aborts the process when it meets an intrinsic that the target lacks, so the choice is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import llvmlite.binding as llvm

from opsin.config import Config
from opsin.errors import DeviceError
from opsin.ops.cpu.arm import with_system_words


@dataclass(frozen=True)
class Isa:
    """An instruction set that kernels are written against.

    Attributes:
        name: what `opsin doctor` prints and OPSIN_ISA takes.
        lanes: float32 values a vector.
        dot: how four products of bytes are summed: vpdpbusd, maddubs, sdot or plain arithmetic.
        block: how eight products each of two rows and two outputs are, where an instruction does that: smmla.
        needs: LLVM features that the CPU must have.
        cpu, features, triple: what LLVM compiles for.
    """

    name: str
    lanes: int
    dot: str
    needs: tuple[str, ...]
    registers: int = 16
    block: str = ""
    cpu: str = ""
    features: str = ""
    triple: str = ""

    @property
    def rounds(self) -> bool:
        """Whether products of 16-bit integers are quicker than those of floats."""
        return self.dot == "vpdpbusd"

    @property
    def foresees(self) -> bool:
        """Whether the CPU is known to read ahead best by itself where weights are read one after another."""
        return self.cpu == "znver4"

    def target_machine(self, *, reloc: str = "default") -> llvm.TargetMachine:
        """An LLVM code generator for this CPU."""
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
        )


# Best first. 512-bit maddubs exists without VNNI, but no such machine was measured: those take avx2.
KNOWN = (
    Isa("avx512vnni", 16, "vpdpbusd", ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "f16c", "fma"), registers=32),
    Isa("avxvnni", 8, "vpdpbusd", ("avx2", "avxvnni", "f16c", "fma")),
    Isa("avx2", 8, "maddubs", ("avx2", "f16c", "fma")),
    Isa("i8mm", 4, "sdot", ("dotprod", "i8mm"), registers=32, block="smmla"),
    Isa("dotprod", 4, "sdot", ("dotprod",), registers=32),
    Isa("portable", 4, "plain", ()),
)
NAMES = tuple(isa.name for isa in KNOWN)


@lru_cache(maxsize=8)
def choose(config: Config) -> Isa:
    """The best instruction set of this machine, or the one that the options ask for.

    Raises DeviceError where the options name one that is unknown or that the CPU lacks.
    """
    cpu, features = _cpu(config)
    if config.isa is None:
        found = next(isa for isa in KNOWN if _has(features, isa))
    else:
        found = _named(config.isa)
        if not _has(features, found):
            missing = ", ".join(n for n in found.needs if not features.get(n, False))
            raise DeviceError(f"OPSIN_ISA={config.isa}: this CPU lacks {missing}", hint="unset OPSIN_ISA")
    text = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    return replace(found, cpu=cpu, features=text, triple=llvm.get_process_triple())


def for_target(name: str, triple: str, cpu: str, features: str) -> Isa:
    """An instruction set for another machine: its code can be emitted here, not run."""
    return replace(_named(name), triple=triple, cpu=cpu, features=features)


def _named(name: str) -> Isa:
    for isa in KNOWN:
        if isa.name == name:
            return isa
    raise DeviceError(f"OPSIN_ISA={name} is unknown", hint=f"one of {', '.join(NAMES)}")


def _cpu(config: Config) -> tuple[str, dict[str, bool]]:
    if config.cpu is None:
        return llvm.get_host_cpu_name(), with_system_words(llvm.get_host_cpu_features())
    flags = [f for f in (config.cpu_features or "").split(",") if f]
    return config.cpu, {f[1:]: f[0] == "+" for f in flags}


def _has(features: dict[str, bool], isa: Isa) -> bool:
    return all(features.get(name, False) for name in isa.needs)
