"""The types that a metadata value can have, and how each looks in Python."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from opsin.gguf.strings import Strings

Array: TypeAlias = (
    NDArray[np.uint8]
    | NDArray[np.int8]
    | NDArray[np.uint16]
    | NDArray[np.int16]
    | NDArray[np.uint32]
    | NDArray[np.int32]
    | NDArray[np.uint64]
    | NDArray[np.int64]
    | NDArray[np.float32]
    | NDArray[np.float64]
    | NDArray[np.bool_]
)
Value: TypeAlias = str | int | float | bool | Array | Strings | Sequence[str]


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
SCALAR_LETTERS: dict[int, str] = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True))
SCALAR_CODES: dict[int, str] = {
    0: "u1",
    1: "i1",
    2: "u2",
    3: "i2",
    4: "u4",
    5: "i4",
    6: "f4",
    7: "u1",
    10: "u8",
    11: "i8",
    12: "f8",
}
