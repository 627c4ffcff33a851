"""A kernel that writes where it is told to, for the tests of guards. Arguments: address, bytes from there."""

from __future__ import annotations


def make(simd):
    at, put = simd.i64_at, simd.put_i8

    def stray(args: int, first: int, last: int, thread: int) -> int:
        put(at(args) + at(args + 8), 77)
        return 0

    return stray
