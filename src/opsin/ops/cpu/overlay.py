"""Tables of rows that stand for others: which embedding takes a row's place in `Operations.overlay`."""

from __future__ import annotations

import numpy as np

from opsin.errors import ModelError
from opsin.ops import Array, Rows, most
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.tape import Lease
from opsin.ops.cpu.tape import place as place_of


class PlacedRows:
    """`opsin.ops.Rows`: the address of an embedding's row for each row of a batch, 0 for none.

    Leases of what is named are kept, so that a program never reads memory that was given back.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.width: int | None = None  # known from the first overlay or the first rows set
        self.block = Block(8 * count, zero=True)
        self._addresses = self.block.data.view(np.int64)
        self._kept: list[Lease | None] = [None] * count

    def set(self, place: int, embeddings: Array, row: int, rows: int = 1) -> None:
        """See `opsin.ops.Rows`. Raises ModelError for rows that are not there, or of another width."""
        if embeddings.rank != 2 or not 0 <= row <= row + rows <= most(embeddings.shape[0]):
            raise ModelError(f"overlay: rows {row} to {row + rows} of embeddings {embeddings.shape}")
        if not 0 <= place <= place + rows <= self.count:
            raise ModelError(f"overlay: places {place} to {place + rows} of {self.count}")
        self.fit(embeddings.width)
        at = place_of(embeddings)
        self._addresses[place : place + rows] = at.address + at.row * np.arange(row, row + rows)
        self._kept[place : place + rows] = [at.lease] * rows

    def clear(self, place: int = 0, rows: int | None = None) -> None:
        stop = self.count if rows is None else place + rows
        self._addresses[place:stop] = 0
        self._kept[place:stop] = [None] * len(self._kept[place:stop])

    def fit(self, width: int) -> None:
        """Raises ModelError where rows of another width are known."""
        if self.width not in (None, width):
            raise ModelError(f"overlay: rows of {width} values among rows of {self.width}")
        self.width = width


def placed(rows: Rows) -> PlacedRows:
    assert isinstance(rows, PlacedRows), "rows of another device"
    return rows
