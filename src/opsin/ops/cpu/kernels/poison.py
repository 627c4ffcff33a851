"""Fill memory that was dropped with NaN, so that whoever still reads it is found out. One item.

Arguments: address, bytes.
"""

from __future__ import annotations

from typing import Any

from opsin.ops.cpu.simd import Simd


def make(simd: Simd) -> Any:
    at, put = simd.i64_at, simd.put_i64

    def poison(args: int, first: int, last: int, thread: int) -> int:
        for i in range(0, at(args + 8), 8):
            put(at(args) + i, -1)
        return 0

    return poison
