"""A network without its weights, of a file's metadata and shapes alone: enough to say how it lays pictures out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.gguf import File
from opsin.nn.module import Change, FileReader, Floats
from opsin.ops.reference import Reference


@dataclass(frozen=True)
class Shape:
    """A weight matrix that is not there."""

    shape: tuple[int, int]
    bytes: int = 0


def changed_shape(shape: tuple[int, int], change: Change | None) -> tuple[int, int]:
    """What a change makes of a matrix of this shape."""
    if change is None:
        return shape
    outputs, inputs = change(np.broadcast_to(np.float32(0), shape)).shape
    return outputs, inputs


class SketchReader(FileReader):
    """Reads no tensor: matrices have shapes, vectors are zeros."""

    def __init__(self, file: File) -> None:
        super().__init__(file, Reference())

    def weight(self, name: str, *, change: Change | None = None) -> Shape:
        _, outputs, inputs = self._matrix(name)
        return Shape(changed_shape((outputs, inputs), change))

    def values(self, name: str) -> Floats:
        return np.zeros(self._need(name).shape, np.float32)
