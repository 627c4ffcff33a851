"""A tensor that is to be written: its name, shape and type now, its bytes when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opsin.gguf.tensor_type import TensorType, check_shape
from opsin.gguf.value import Array

_TYPE_OF_CODE = {"f4": 0, "f2": 1, "i1": 24, "i2": 25, "i4": 26, "i8": 27, "f8": 28}


@dataclass(frozen=True, slots=True, eq=False)
class NewTensor:
    """`shape` is in NumPy's order and counts elements; `type` is the ggml id.

    `data` is the blocks as little-endian bytes, or a function that makes them, which is called once while writing:
    so a file larger than memory is written tensor by tensor.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    data: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]

    @classmethod
    def of(cls, name: str, array: Array | NDArray[np.float16]) -> NewTensor:
        """A plain tensor of NumPy's numbers: floats of 16, 32, 64 bits or signed integers. Raises ValueError."""
        type_id = _TYPE_OF_CODE.get(f"{array.dtype.kind}{array.dtype.itemsize}")
        if type_id is None:
            raise ValueError(f"tensor {name!r}: GGUF has no tensor type for NumPy's {array.dtype}")
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return cls(name, array.shape, type_id, little.reshape(-1).view(np.uint8))

    @property
    def kind(self) -> TensorType:
        """The tensor's type. Raises ValueError if GGUF has no such type."""
        return check_shape(self.shape, self.type)

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks. Raises ValueError if the shape and the type do not go together."""
        return self.kind.bytes_of(self.shape)

    def load(self) -> NDArray[np.uint8]:
        """The blocks as bytes, [nbytes]. Raises ValueError if they are not as many as the shape says."""
        data = self.data() if callable(self.data) else self.data
        if data.dtype != np.uint8 or data.nbytes != self.nbytes:
            raise ValueError(f"tensor {self.name!r} needs {self.nbytes} bytes, not {data.nbytes} of {data.dtype}")
        return np.ascontiguousarray(data).reshape(-1)
