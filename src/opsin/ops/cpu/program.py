"""Programs: operations as (kernel, arguments), in an array that one compiled call replays on all threads.

A program owns every array that it names. It does not know what the kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.ops.cpu import cells
from opsin.ops.cpu.arena import Block


@dataclass(frozen=True)
class Entry:
    """One operation.

    Attributes:
        title: what an error message calls it.
        kernel: address of its machine code.
        args: its int64 arguments.
        items: address of the number of its items.
        grain: items that a thread takes at least.
        reads, writes: the memory it touches; operations that share none may overlap.
        keep: whatever must live as long as the program.
    """

    title: str
    kernel: int
    args: npt.NDArray[np.int64]
    items: int
    grain: int
    reads: tuple[Block, ...]
    writes: tuple[Block, ...]
    keep: tuple[object, ...] = ()


class Program:
    """Entries laid out for the executor. Replaying it costs one call."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        words = cells.HEAD_BYTES // 8 + cells.ENTRY_WORDS * len(self.entries)
        self._block = np.zeros(words + 8, np.int64)
        start = (-self._block.ctypes.data % cells.LINE) // 8
        self._words = self._block[start : start + words]
        self._words[0] = len(self.entries)
        self._table = self._words[cells.HEAD_BYTES // 8 :].reshape(-1, cells.ENTRY_WORDS)
        for row, entry, stage in zip(self._table, self.entries, stages(self.entries), strict=True):
            row[:5] = entry.kernel, entry.args.ctypes.data, entry.items, entry.grain, stage
        self.address = self._words.ctypes.data

    def start(self, epoch: int) -> None:
        """Make all tickets new, for the run that `epoch` counts."""
        self._table[:, cells.ENTRY_TICKET // 8 : cells.ENTRY_DONE // 8 + 1] = epoch << 32

    def title(self, index: int) -> str:
        return self.entries[index].title

    def __len__(self) -> int:
        return len(self.entries)


def stages(entries: Sequence[Entry]) -> list[int]:
    """For each entry, the first of those that must be done before the next entry starts; -1 when none must.

    A stage is a run of operations none of which writes what another of them touches.
    """
    result = [-1] * len(entries)
    start, read, written = 0, set[Block](), set[Block]()
    for i, entry in enumerate(entries):
        touched = {*entry.reads, *entry.writes}
        if touched & written or set(entry.writes) & read:
            result[i - 1] = start
            start, read, written = i, set(), set()
        read |= set(entry.reads)
        written |= set(entry.writes)
    if entries:
        result[-1] = start
    return result
