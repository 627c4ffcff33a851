"""Memory of the process as the C library keeps it."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_MMAP_THRESHOLD: Final = -3  # of malloc.h
_NOT_GLIBC: Final = (AttributeError, OSError, TypeError)  # no such knob; on Windows no library without a name


def give_memory_back() -> None:
    """Tell glibc that what is larger than 1 MB goes back to the system as soon as it is free. For the whole process.

    By default bodies and pictures are cut from heaps, one of each thread, which keep what they once had.
    """
    with suppress(*_NOT_GLIBC):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def trim() -> None:
    """Let glibc give back what lies free between other things, after much was freed at once."""
    with suppress(*_NOT_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)
