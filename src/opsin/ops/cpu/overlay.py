"""Tables of rows that stand for others: which embedding takes a row's place in `Operations.overlay`, or adds to it."""

from __future__ import annotations

import numpy as np

from opsin.errors import ModelError
from opsin.ops import Array, Rows, most
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.tape import Lease
from opsin.ops.cpu.tape import place as place_of
from opsin.ops.cpu.words import words


class PlacedRows:
    """`opsin.ops.Rows`: the address of an embedding's row for each row of a batch, 0 for none.

    Leases of what is named are kept, so that a program never reads memory that was given back.

    Attributes:
        reach: a word: rows up to the last one for which an embedding is named. Work that asks for nothing else ends
            there, and is none where nothing is named.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.width: int | None = None  # of the embeddings, known from the first rows set
        self.reach = words(0)
        self._read = 0  # values of each embedding that operations read
        self.block = Block(8 * count, zero=True)
        self._addresses = self.block.data.view(np.int64)
        self._kept: list[Lease | None] = [None] * count

    def set(self, place: int, embeddings: Array, row: int, rows: int = 1) -> None:
        """See `opsin.ops.Rows`. Raises ModelError for rows that are not there, or of another width."""
        if embeddings.rank != 2 or not 0 <= row <= row + rows <= most(embeddings.shape[0]):
            raise ModelError(f"overlay: rows {row} to {row + rows} of embeddings {embeddings.shape}")
        if not 0 <= place <= place + rows <= self.count:
            raise ModelError(f"overlay: places {place} to {place + rows} of {self.count}")
        if self.width not in (None, embeddings.width):
            raise ModelError(f"overlay: rows of {embeddings.width} values among rows of {self.width}")
        if embeddings.width < self._read:
            raise ModelError(f"overlay: {self._read} values are read of rows of {embeddings.width}")
        self.width = embeddings.width
        at = place_of(embeddings)
        self._addresses[place : place + rows] = at.address + at.row * np.arange(row, row + rows)
        self._kept[place : place + rows] = [at.lease] * rows
        self.reach[0] = max(int(self.reach[0]), place + rows)

    def clear(self, place: int = 0, rows: int | None = None) -> None:
        stop = self.count if rows is None else place + rows
        self._addresses[place:stop] = 0
        self._kept[place:stop] = [None] * len(self._kept[place:stop])
        self.reach[0] = np.flatnonzero(self._addresses).max(initial=-1) + 1

    def read(self, values: int) -> None:
        """So many values of each embedding are read. Raises ModelError where there are fewer."""
        if self.width is not None and values > self.width:
            raise ModelError(f"overlay: {values} values are read of rows of {self.width}")
        self._read = max(self._read, values)


def placed(rows: Rows) -> PlacedRows:
    assert isinstance(rows, PlacedRows), "rows of another device"
    return rows
