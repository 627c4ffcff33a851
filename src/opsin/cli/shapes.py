"""A model without its weights: matrices have shapes and sizes, and nothing is read but small vectors."""

from __future__ import annotations

from dataclasses import dataclass

from opsin.gguf import File
from opsin.nn.module import Change, FileReader
from opsin.nn.sketch import changed_shape
from opsin.ops.layout import weight_bytes
from opsin.ops.reference import Reference
from opsin.quants import BY_NAME, by_id


@dataclass(frozen=True)
class Shape:
    """A weight matrix that is not there."""

    shape: tuple[int, int]
    bytes: int


class ShapeReader(FileReader):
    """Adds up the bytes that matrices would take on a device."""

    def __init__(self, file: File) -> None:
        super().__init__(file, Reference())
        self.bytes = 0

    def weight(self, name: str, *, change: Change | None = None) -> Shape:
        """Its shape and size; the file is not read."""
        kind, outputs, inputs = self._matrix(name)
        if change is not None:
            kind, (outputs, inputs) = BY_NAME["F32"].id, changed_shape((outputs, inputs), change)
        size = weight_bytes(by_id(kind), outputs, inputs)
        self.bytes += size
        return Shape((outputs, inputs), size)
