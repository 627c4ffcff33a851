"""What an ARM processor can do by its system's own words.

On Linux LLVM knows a processor's features by some words of /proc/cpuinfo, and `asimddp`, products of bytes, is not one
of them (LLVM 22): a Graviton or a Raspberry Pi 5 would compute without.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping

_AT_HWCAP = 16  # Linux, include/uapi/linux/auxvec.h
_HWCAP_ASIMDDP = 1 << 20  # Linux, arch/arm64/include/uapi/asm/hwcap.h
_SYSCTL = b"hw.optional.arm.FEAT_DotProd"  # macOS, "Determining instruction set characteristics"
_PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE = 43  # Windows, winnt.h


def with_system_words(features: Mapping[str, bool]) -> dict[str, bool]:
    """LLVM's features of this machine, and dotprod where it is an ARM processor that has it."""
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    return {**features, "dotprod": True} if is_arm and _has_dotprod(sys.platform) else dict(features)


def _has_dotprod(system: str) -> bool:
    asked = {"linux": _on_linux, "darwin": _on_macos, "win32": _on_windows}.get(system)
    try:
        return asked is not None and asked()
    except (AttributeError, OSError):  # a C library without the call
        return False


def _on_linux() -> bool:
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    return bool(ask(_AT_HWCAP) & _HWCAP_ASIMDDP)


def _on_macos() -> bool:
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    status = ctypes.CDLL(None).sysctlbyname(_SYSCTL, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return status == 0 and value.value == 1


def _on_windows() -> bool:
    kernel = ctypes.CDLL("kernel32")
    return bool(kernel.IsProcessorFeaturePresent(_PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE))
