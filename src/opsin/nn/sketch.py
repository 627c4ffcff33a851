"""A network without its weights, of a file's metadata and shapes alone: enough to say how it lays pictures out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.gguf import File
from opsin.nn.module import FileReader, Floats
from opsin.ops.reference import Reference


@dataclass(frozen=True)
class Shape:
    """A weight matrix that is not there."""

    shape: tuple[int, int]
    bytes: int = 0


class SketchReader(FileReader):
    """Reads no tensor: matrices have shapes, vectors are zeros."""

    def __init__(self, file: File) -> None:
        super().__init__(file, Reference())

    def weight(self, name: str, *, transposed: bool = False) -> Shape:
        _, outputs, inputs = self._matrix(name)
        return Shape((inputs, outputs) if transposed else (outputs, inputs))

    def values(self, name: str) -> Floats:
        return np.zeros(self._need(name).shape, np.float32)
