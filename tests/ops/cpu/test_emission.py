"""Code that kernels become: the instructions of CPUs that are not here, and what no kernel may contain."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import types

import pytest

from opsin.config import from_environment
from opsin.errors import DeviceError
from opsin.ops.cpu import compiler
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.isa import KNOWN, NAMES, choose, for_target
from opsin.ops.layout import layout_of
from opsin.quants import BY_NAME

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
TARGETS = {
    "i8mm": for_target("i8mm", ARM, "neoverse-v1", "+neon,+dotprod,+i8mm,+fullfp16"),
    "dotprod": for_target("dotprod", ARM, "neoverse-n1", "+neon,+dotprod,+fullfp16"),
    "avx512vnni": for_target("avx512vnni", X86, "cascadelake", ""),
    "avxvnni": for_target("avxvnni", X86, "alderlake", ""),
    "avx2": for_target("avx2", X86, "haswell", ""),
    "portable": for_target("portable", X86, "x86-64", ""),
    "portable on arm": for_target("portable", ARM, "generic", ""),
}
DOTS = {
    "i8mm": ({"sdot", "smmla"}, "v"),  # of one row, of several
    "dotprod": ({"sdot"}, "v"),
    "avx512vnni": ({"vpdpbusd"}, "%zmm"),
    "avxvnni": ({"vpdpbusd"}, "%ymm"),
    "avx2": ({"vpmaddubsw"}, "%ymm"),
}
UNEVEN = "MXFP4"
FAST = re.compile(r"= (?:tail )?\w+(?: \w+)*? (?:fast|reassoc|nnan|ninf|arcp|afn)\b")


def linear(name: str) -> Kernel:
    return Kernel.of("linear", **_options(name))


@functools.cache
def assembly(kernel: Kernel, target: str) -> str:
    return compiler.assembly(kernel, TARGETS[target])


def _options(name: str):
    layout = layout_of(BY_NAME[name])
    return layout.options if layout.kind == "planes" else {"kind": layout.kind}


# Of sets with `vpdpbusd` alone.
VNNI = [
    *(Kernel.of("attend_integers", bits=bits) for bits in (8, 16)),
    Kernel.of("quantise_int16"),
    Kernel.of("dense", kind="int16"),
    Kernel.of("dense", kind="int16", activation="gelu"),
    Kernel.of("linear", kind="int16"),
    Kernel.of("rows", part="embed", kind="int16"),
    *(Kernel.of("pack", kind="int16", source=kind) for kind in ("f16", "bf16")),
]
KERNELS = [
    *(linear(name) for name in ("F16", "Q4_0", "Q4_K", "Q6_K", "NVFP4")),
    Kernel.of("rows", part="embed", **_options("Q4_K")),
    Kernel.of("rows", part="take"),
    *(Kernel.of("rows", part=part) for part in ("overlay", "add", "mean", "put")),
    Kernel.of("linear", kind="f16", activation="gelu"),
    Kernel.of("quantise", group=32, zero=8),
    Kernel.of("dense", kind="f16", activation="gelu_erf"),
    *(Kernel.of("pack", kind="planes", format=BY_NAME[name].id) for name in ("Q4_0", "Q6_K")),
    Kernel.of("pack", kind="f32"),
    *(
        Kernel.of("pointwise", name=name)
        for name in ("add", "copy", "glu_gelu", "gelu_erf", "rms_norm", "layer_norm", "decay")
    ),
    *(Kernel.of("rope", part="table", axes=axes, grows=False) for axes in (False, True)),
    Kernel.of("rope", part="table", axes=False, grows=True),
    *(Kernel.of("rope", part="rotate", pairing=pairing) for pairing in ("neighbours", "halves")),
    *(Kernel.of("pages", kind=kind) for kind in ("f16", "q8_0", "q4_0")),
    *(Kernel.of("attend", kind=kind, softcap=True, vectors=4) for kind in ("q8_0", "q4_0")),
    Kernel.of("attend", kind="dense", softcap=False, vectors=5),
    *(Kernel.of("plan_reads", dense=dense) for dense in (False, True)),
    *(Kernel.of("conv_state", part=part, steps=4) for part in ("rows", "state")),
    Kernel.of("delta", vectors=2),
    *(Kernel.of(name) for name in ("merge_chunks", "poison", "execute", "candidates")),
    *(VNNI if choose(from_environment()).dot == "vpdpbusd" else []),
]


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", UNEVEN])
@pytest.mark.parametrize("target", DOTS)
def test_dot_products_of_bytes_use_the_instructions_of_the_cpu(target, name):
    text = assembly(linear(name), target)
    words, register = DOTS[target]
    assert set(re.findall(rf"\b({'|'.join(set().union(*(some for some, _ in DOTS.values())))})\b", text)) == words
    assert all(re.search(rf"\b{word}\b.*{register}", text) for word in words)


@pytest.mark.parametrize("target", ["avx512vnni", "avxvnni"])
def test_attention_by_bytes_uses_it_too(target):
    (word,), register = DOTS[target]
    assert re.search(rf"\b{word}\b.*{register}", assembly(Kernel.of("attend_integers", bits=8), target))


@pytest.mark.parametrize("target", ["avx512vnni", "avxvnni"])
def test_products_of_integers_of_16_bits_take_pairs(target):
    for kernel in (Kernel.of("dense", kind="int16"), Kernel.of("linear", kind="int16")):
        assert re.search(rf"\bvpdpwssd\b.*{DOTS[target][1]}", assembly(kernel, target))


@pytest.mark.parametrize("target", DOTS)
def test_uneven_steps_are_looked_up_by_a_shuffle_of_bytes(target):
    shuffles = re.compile(r"\btbl\b" if TARGETS[target].triple == ARM else r"\bvpshufb\b")
    assert shuffles.search(assembly(linear(UNEVEN), target))
    assert not shuffles.search(assembly(linear("Q4_0"), target))


@pytest.mark.parametrize("target", ["portable", "portable on arm"])
def test_portable_code_uses_none_of_them(target):
    text = assembly(linear("Q4_0"), target)
    assert not re.search(r"\bsdot\b|\bvpdp|\bvpmadd|%[yz]mm", text)
    assert len(text) > 2000


@pytest.mark.parametrize(
    "kernel",
    [Kernel.of("execute"), *(Kernel.of("quantise", group=group, zero=8) for group in (16, 32)), linear("F16")],
    ids=str,
)
def test_other_kernels_for_arm(kernel):
    text = assembly(kernel, "dotprod")
    assert re.search(r"\bfmla\b|\bfrint|\bldar\b|\bcas", text)


def test_what_python_wrote_is_seen_in_its_order_on_arm():
    assert re.search(r"\bdmb\s+ish\b", assembly(Kernel.of("execute"), "portable on arm"))


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_no_kernel_raises_or_is_compiled_with_fast_math(kernel):
    """A raise inside compiled code vanishes, and fast math would drop NaN checks and the order of sums."""
    text = compiler.llvm_text(kernel, choose(from_environment()))[1]
    assert not FAST.search(text)
    assert statuses(text) == {"0"}
    assert "picklebuf" not in text  # what an exception would be made from
    assert not re.search(r"@(numba_|NRT_|Py|_Py)\w*", re.sub(r"@_ZN[\w.$]*", "", text))


def statuses(text: str) -> set[str]:
    """Constants that functions give as their status, but for those of the functions that they call."""
    found = set()
    for value in re.findall(r"^\s*ret i32 ([^,\s]+)", text, re.MULTILINE):
        joined = re.search(rf"^\s*{re.escape(value)} = phi i32 (.*)", text, re.MULTILINE)
        found |= set(re.findall(r"\[ (-?\w+),", joined[1])) if joined else {value}
    return {value for value in found if not re.fullmatch(r"%[\w.]+", value)}


def test_the_search_for_statuses_finds_an_exception():
    def make(simd):
        put = simd.put_i64

        def divide(args: int, first: int, last: int, thread: int) -> int:
            if last == 7:
                raise ZeroDivisionError
            put(args, first)
            return 0

        return divide

    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("opsin.ops.cpu.kernels.raising")
        module.make = make
        patch.setitem(sys.modules, module.__name__, module)
        text = compiler.llvm_text(Kernel.of("raising"), choose(from_environment()))[1]
    assert statuses(text) != {"0"}
    assert "picklebuf" in text


def test_the_search_for_fast_math_finds_it():
    assert FAST.search("  %5 = fadd fast double %3, %4")
    assert FAST.search("  %5 = fadd reassoc nsz double %3, %4")
    assert FAST.search("  %5 = tail call fast float @llvm.sqrt.f32(float %3)")
    assert not FAST.search("  %5 = fadd double %3, %4")
    assert not FAST.search("  %5 = call fastcc i64 @f(i64 %3)")


class TestChoice:
    CONFIG = dataclasses.replace(from_environment(), isa=None, cpu=None, cpu_features=None)

    def choose(self, **changes):
        return choose(dataclasses.replace(self.CONFIG, **changes))

    @pytest.mark.parametrize("isa", [isa for isa in KNOWN if isa.name != "portable"], ids=lambda isa: isa.name)
    def test_a_cpu_with_what_a_set_needs_gets_it_or_a_better_one(self, isa):
        features = ",".join("+" + name for name in isa.needs)
        assert self.choose(cpu="some", cpu_features=features).name == isa.name

    @pytest.mark.parametrize("isa", [isa for isa in KNOWN if isa.name != "portable"], ids=lambda isa: isa.name)
    def test_every_feature_is_needed(self, isa):
        for missing in isa.needs:
            features = ",".join(("-" if name == missing else "+") + name for name in isa.needs)
            assert self.choose(cpu="some", cpu_features=features).name != isa.name

    def test_a_cpu_by_name_alone_gets_portable_code(self):
        found = self.choose(cpu="x86-64")
        assert (found.name, found.cpu, found.features) == ("portable", "x86-64", "")

    def test_a_set_may_be_forced_where_the_cpu_has_it(self):
        assert self.choose(isa="portable").name == "portable"

    def test_a_set_that_the_cpu_lacks_is_refused_with_what_is_missing(self):
        with pytest.raises(DeviceError, match="lacks avx2, f16c, fma"):
            self.choose(isa="avx2", cpu="x86-64")

    def test_a_set_that_is_switched_off_is_refused_with_what_is_missing(self):
        with pytest.raises(DeviceError, match="lacks fma"):
            self.choose(isa="avx2", cpu="x86-64", cpu_features="+avx2,+f16c,-fma")

    def test_an_unknown_set_is_refused_with_the_known_ones(self):
        with pytest.raises(DeviceError, match=", ".join(NAMES)):
            self.choose(isa="mmx")
