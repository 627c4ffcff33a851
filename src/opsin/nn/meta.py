"""A network without its weights, of a file's metadata and shapes alone, as torch's "meta" device makes one.

Enough to say how it lays pictures out, and how many bytes its weights would take.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.arrays import Floats
from opsin.gguf import File
from opsin.nn.module import Change, Choice, FileReader
from opsin.ops.layout import weight_bytes
from opsin.ops.reference import Reference
from opsin.quants import BY_NAME, by_id


@dataclass(frozen=True)
class MetaWeight:
    """A weight matrix that is not there: its shape, and the bytes that it would take on a device."""

    shape: tuple[int, int]
    bytes: int


@dataclass(frozen=True)
class MetaStack:
    """Matrices of experts that are not there."""

    shape: tuple[int, int, int]
    bytes: int


class MetaReader(FileReader):
    """Reads no matrix: each has a shape and a size, and `bytes` adds these up.

    `vectors`: whether values that are read at once, as those of norms, are those of the file; else they are zeros.
    """

    def __init__(self, file: File, *, vectors: bool = False) -> None:
        super().__init__(file, Reference())
        self.bytes = 0
        self._vectors = vectors

    def weight(self, name: str, *, change: Change | None = None, rows: Choice | None = None) -> MetaWeight:
        kind, outputs, inputs = self._matrix(name)
        if rows is not None:
            outputs = len(rows(outputs))
        if change is not None:
            kind = BY_NAME["F32"].id
            outputs, inputs = change(np.broadcast_to(np.float32(0), (outputs, inputs))).shape
        size = weight_bytes(by_id(kind), outputs, inputs, rounded=True)
        self.bytes += size
        return MetaWeight((outputs, inputs), size)

    def halves(self, name: str) -> tuple[MetaWeight, MetaWeight]:
        kind, outputs, inputs = self._matrix(name)
        whole = by_id(kind if inputs // 2 % by_id(kind).elements == 0 else BY_NAME["F32"].id)
        size = weight_bytes(whole, outputs, inputs // 2, rounded=True)
        self.bytes += 2 * size
        half = MetaWeight((outputs, inputs // 2), size)
        return half, half

    def stack(self, name: str, part: int = 0, parts: int = 1) -> MetaStack:
        kind, (experts, outputs, inputs) = self._stack(name, parts)
        size = experts * weight_bytes(by_id(kind), outputs, inputs)
        self.bytes += size
        return MetaStack((experts, outputs, inputs), size)

    def stored(self, name: str) -> MetaWeight:
        _, rows, width = self._matrix(name)
        return MetaWeight((rows, width), 0)

    def values(self, name: str) -> Floats:
        return super().values(name) if self._vectors else np.zeros(self._need(name).shape, np.float32)
