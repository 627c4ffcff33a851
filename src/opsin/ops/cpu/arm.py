"""What an ARM processor can do by its system's own words.

On Linux LLVM knows a processor's features by some words of /proc/cpuinfo, and `asimddp` and `i8mm`, products of bytes,
are not among them (LLVM 22): a Graviton or a Raspberry Pi 5 would compute without.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_AT_HWCAP, _AT_HWCAP2 = 16, 26  # Linux, include/uapi/linux/auxvec.h


@dataclass(frozen=True)
class _Words:
    """How systems are asked for one feature.

    Attributes:
        word, bit: of Linux's auxiliary vector (arch/arm64/include/uapi/asm/hwcap.h).
        macos: a name of sysctl ("Determining instruction set characteristics").
        windows: a number of IsProcessorFeaturePresent (winnt.h).
    """

    word: int
    bit: int
    macos: bytes
    windows: int

    def are_true(self, system: str) -> bool:
        asked = {"linux": self._on_linux, "darwin": self._on_macos, "win32": self._on_windows}.get(system)
        try:
            return asked is not None and asked()
        except (AttributeError, OSError):  # a C library without the call
            return False

    def _on_linux(self) -> bool:
        ask = ctypes.CDLL(None).getauxval
        ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
        return bool(ask(self.word) >> self.bit & 1)

    def _on_macos(self) -> bool:
        value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        ask = ctypes.CDLL(None).sysctlbyname
        status = ask(self.macos, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
        return status == 0 and value.value == 1

    def _on_windows(self) -> bool:
        return bool(ctypes.CDLL("kernel32").IsProcessorFeaturePresent(self.windows))


_ASKED = {
    "dotprod": _Words(_AT_HWCAP, 20, b"hw.optional.arm.FEAT_DotProd", 43),
    "i8mm": _Words(_AT_HWCAP2, 13, b"hw.optional.arm.FEAT_I8MM", 66),
}


def with_system_words(features: Mapping[str, bool]) -> dict[str, bool]:
    """LLVM's features of this machine and, where it is an ARM processor, those that its system tells."""
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    told = {name: True for name, words in _ASKED.items() if is_arm and words.are_true(sys.platform)}
    return {**features, **told}
