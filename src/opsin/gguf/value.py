"""The types that a metadata value can have, how each looks in Python, and which type a Python value gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from opsin.gguf.strings import Strings

Array: TypeAlias = (
    npt.NDArray[np.uint8]
    | npt.NDArray[np.int8]
    | npt.NDArray[np.uint16]
    | npt.NDArray[np.int16]
    | npt.NDArray[np.uint32]
    | npt.NDArray[np.int32]
    | npt.NDArray[np.uint64]
    | npt.NDArray[np.int64]
    | npt.NDArray[np.float32]
    | npt.NDArray[np.float64]
    | npt.NDArray[np.bool_]
)
Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | Array | Strings | Sequence[str]


class ValueType(IntEnum):
    """The types of metadata values, by their ids in files."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# struct's letter and NumPy's code of each type of fixed width; the byte order is put before them.
_FIXED = [kind for kind in ValueType if kind not in (ValueType.STRING, ValueType.ARRAY)]
SCALAR_LETTERS: dict[ValueType, str] = dict(zip(_FIXED, "BbHhIifBQqd", strict=True))
SCALAR_CODES: dict[ValueType, str] = dict(
    zip(_FIXED, ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u1", "u8", "i8", "f8"), strict=True)
)
_OF_CODE = {code: kind for kind, code in SCALAR_CODES.items() if kind is not ValueType.BOOL} | {"b1": ValueType.BOOL}


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """A value with the type to write it as: `Typed(ValueType.UINT16, 3)`.

    For an array `type` is that of the elements: `Typed(ValueType.INT32, [1, 2])`, `Typed(ValueType.STRING, [])`.
    """

    type: ValueType
    value: Scalar | Array | Sequence[Scalar]


def find_type(value: Value | Sequence[Scalar] | Typed) -> Typed:
    """The type that `value` is written as, if it is not told.

    Integers are UINT32 when they fit, else INT32, INT64 or UINT64; integers in a list are INT32 when all fit, else
    INT64 or UINT64; floats are FLOAT32. NumPy arrays and scalars keep their own type. Raises ValueError.
    """
    if isinstance(value, Typed):
        return value
    if isinstance(value, np.ndarray | np.generic):
        kind = _OF_CODE.get(f"{value.dtype.kind}{value.dtype.itemsize}")
        if kind is None:
            raise ValueError(f"GGUF has no type for NumPy's {value.dtype}")
        return Typed(kind, value)
    if isinstance(value, str | int | float):
        return Typed(_find_common([value], (ValueType.UINT32, ValueType.INT32)), value)
    if isinstance(value, Strings):
        return Typed(ValueType.STRING, value)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Sequence):
        raise ValueError(f"GGUF has no type for a {type(value).__name__}")
    if len(value) == 0:
        raise ValueError("an empty list does not tell its type")
    return Typed(_find_common(value, (ValueType.INT32,)), value)


def _find_common(values: Sequence[Scalar], short: tuple[ValueType, ...]) -> ValueType:
    """The type that all of `values` fit; integers prefer the `short` ones."""
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return ValueType.STRING
    if kinds == {bool}:
        return ValueType.BOOL
    if kinds == {float} or kinds == {int, float}:
        return ValueType.FLOAT32
    if kinds != {int}:
        raise ValueError(f"no one type holds {', '.join(sorted(kind.__name__ for kind in kinds))}")
    numbers = [int(value) for value in values]
    for kind in (*short, ValueType.INT64, ValueType.UINT64):
        limits = np.iinfo(SCALAR_CODES[kind])
        if limits.min <= min(numbers) and max(numbers) <= limits.max:
            return kind
    raise ValueError("the integers do not fit in 64 bits")
