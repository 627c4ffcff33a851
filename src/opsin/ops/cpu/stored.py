"""Tables that stay where they are stored: the rows that a batch asks for are read when it runs, and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opsin.errors import DeviceError
from opsin.ops import Array, Raw
from opsin.ops.cpu import cells
from opsin.ops.cpu.code import Kernel
from opsin.ops.cpu.pack import as_plain
from opsin.ops.cpu.scratch import Scratch
from opsin.ops.cpu.tape import place
from opsin.ops.cpu.tiles import PACK_SCRATCH
from opsin.ops.layout import FLOAT_BYTES, Layout, layout_of
from opsin.quants import QuantType, by_id

if TYPE_CHECKING:
    from opsin.ops.cpu.operations import Operations


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A table of which nothing is held; `opsin.ops.Weight`, for `embed` alone."""

    raw: Raw
    kind: QuantType
    layout: Layout

    @classmethod
    def of(cls, raw: Raw) -> StoredTable:
        """Raises ModelError where a row is not whole blocks."""
        kind = by_id(raw.type)
        kind.row_bytes(raw.shape[1])
        return cls(raw, kind, layout_of(kind))

    @property
    def shape(self) -> tuple[int, int]:
        return self.raw.shape

    @property
    def bytes(self) -> int:
        return 0

    @property
    def row_bytes(self) -> int:
        """Of a row as the kernel is given it: blocks as they are stored, or floats."""
        width = self.shape[1]
        if self.layout.kind == "planes":
            return self.kind.row_bytes(width)
        return width * FLOAT_BYTES[self.layout.kind]

    def fetch(self, ids: npt.NDArray[np.int32], into: npt.NDArray[np.uint8]) -> None:
        """Fill `into` [rows, row_bytes] with the rows of these ids. Raises DeviceError for others, FileError as `raw`.

        Each id is read once, in the order in which they are stored.
        """
        if not ids.size:
            return
        wanted, where = np.unique(ids, return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= self.shape[0]:
            raise DeviceError(cells.MESSAGES[cells.BAD_ID])
        stored = np.empty((len(wanted), self.kind.row_bytes(self.shape[1])), np.uint8)
        for row, id in zip(stored, wanted.tolist(), strict=True):
            self.raw.read(id, id + 1, row)
        if self.layout.kind != "planes":
            stored = as_plain(self.kind, self.layout, stored.reshape(-1)).reshape(len(wanted), -1)
        np.take(stored, where.reshape(-1), 0, out=into[: ids.size])


def embed_stored(ops: Operations, ids: Array, table: StoredTable, memory: Scratch) -> Array:
    """`Ops.embed` of such a table. What is fetched for the largest batch takes memory, and nothing else does."""
    y, row = ops.new((ids.shape[0], table.shape[1])), table.row_bytes
    block = ops.tape.fetched(ids, row, table.fetch)
    planes = table.layout.kind == "planes"
    blocks = table.shape[1] // table.kind.elements if planes else table.shape[1]
    scratch, size = memory.of(PACK_SCRATCH)
    args = (block.address, row, blocks, place(y).address, place(y).row, scratch.block.address, size)
    kernel = Kernel.of("stored", kind=table.layout.kind, **({"format": table.kind.id} if planes else {}))
    ops.tape.emit(kernel, args, items=ids.shape[0], reads=[ids, block], writes=[y], keep=(table, scratch))
    return y
