"""Checks of shapes, before a kernel believes them."""

from __future__ import annotations

from opsin.errors import ModelError
from opsin.ops import Array


def needs_width(what: str, vector: Array | None, width: int) -> None:
    if vector is not None and vector.shape != (width,):
        raise ModelError(f"{what} is {vector.shape}, not {(width,)}")


def groups_of(what: str, x: Array, k: int) -> int:
    """Rows of `x` in groups of k."""
    if x.rank != 2 or not isinstance(x.shape[0], int) or k < 1 or x.shape[0] % k:
        raise ModelError(f"{what}: x is {x.shape}, which is not so many times {k} rows")
    return x.shape[0] // k


def need_same(x: Array, y: Array) -> None:
    if y.shape not in (x.shape, x.shape[1:]):
        raise ModelError(f"shapes {x.shape} and {y.shape} do not go together")
