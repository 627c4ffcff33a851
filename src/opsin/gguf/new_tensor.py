"""A tensor that is to be written: its name, shape and type now, its bytes when their turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from opsin.gguf.tensor_type import TensorType, check_shape
from opsin.gguf.value import Array

_RUN = 1 << 22  # elements that are made at once
_TYPE_OF_CODE = {"f4": 0, "f2": 1, "i1": 24, "i2": 25, "i4": 26, "i8": 27, "f8": 28}

Blocks: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MadeRows:
    """Blocks that can be made some rows at a time. `make` gives those of rows first to last, to any thread."""

    make: Callable[[int, int], Blocks]


@dataclass(frozen=True, slots=True, eq=False)
class NewTensor:
    """`shape` is in NumPy's order and counts elements; `type` is the ggml id.

    `data` is the blocks as little-endian bytes, or a function that makes them, which is called once while writing:
    so a file larger than memory is written tensor by tensor. The function may give an iterator over runs of whole
    blocks instead, so that not even a tensor is ever in memory; `MadeRows` does so, too, in any order.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    data: Blocks | Callable[[], Blocks | Iterator[Blocks]] | MadeRows

    @classmethod
    def of(cls, name: str, array: Array | npt.NDArray[np.float16]) -> NewTensor:
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

    def pieces(self) -> Iterator[Blocks]:
        """The blocks as bytes, [n], run by run. Raises ValueError if they are not as many as the shape says."""
        data: Blocks | Iterator[Blocks]
        if isinstance(self.data, MadeRows):
            data = self._runs(self.data)
        else:
            data = self.data() if callable(self.data) else self.data
        done = 0
        for piece in [data] if isinstance(data, np.ndarray) else data:
            done += piece.nbytes
            if piece.dtype != np.uint8 or piece.nbytes % self.kind.block_bytes or done > self.nbytes:
                raise ValueError(f"tensor {self.name!r} needs {self.nbytes} bytes, not {done} of {piece.dtype}")
            yield np.ascontiguousarray(piece).reshape(-1)
        if done != self.nbytes:
            raise ValueError(f"tensor {self.name!r} needs {self.nbytes} bytes, not {done} of uint8")

    def _runs(self, rows: MadeRows) -> Iterator[Blocks]:
        """All rows, some at a time."""
        count = self.shape[0]
        step = max(1, _RUN // max(1, prod(self.shape[1:])))
        return (rows.make(first, min(count, first + step)) for first in range(0, count, step))
