"""Memory for values: blocks that are taken, dropped, and taken again.

A block returns to the arena when the last `Array` that sees it is dropped. In a program that is being recorded
the order of operations is the order of time, so a dropped block may serve the next operation. With guards on,
each block lies between two fences and is filled with NaN when it is dropped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from threading import Lock

import numpy as np
import numpy.typing as npt

from opsin.errors import DeviceError

LINE = 64
FENCE = 0xA5
POISON = 0xFF  # four of them are a NaN


class Block:
    """A run of bytes on a cache line. `address` is for kernels' arguments only."""

    __slots__ = ("__weakref__", "_start", "_whole", "address", "bytes", "data", "guarded", "used")

    def __init__(self, size: int, *, guarded: bool = False, zero: bool = False) -> None:
        fence = LINE if guarded else 0
        make = np.zeros if zero else np.empty
        self._whole: npt.NDArray[np.uint8] = make(size + 2 * fence + LINE, np.uint8)
        start = -self._whole.ctypes.data % LINE + fence
        self.data = self._whole[start : start + size]
        self.bytes, self.used, self.guarded = size, size, guarded
        self._start, self.address = start, int(self._whole.ctypes.data) + start
        if guarded:
            self._whole[start - fence : start] = FENCE
            self._whole[start + size : start + size + fence] = FENCE

    @classmethod
    def within(cls, slab: Block, offset: int, size: int) -> Block:
        """Part of a larger block, which it keeps alive; offset on a cache line."""
        part = cls.__new__(cls)
        part._whole, part.data, part._start = slab._whole, slab.data[offset : offset + size], slab._start + offset
        part.bytes, part.used, part.guarded = size, size, False
        part.address = slab.address + offset
        return part

    @classmethod
    def over(cls, data: npt.NDArray[np.uint8]) -> Block:
        """Memory that is there already, which it keeps alive; on a cache line."""
        part = cls.__new__(cls)
        part._whole, part.data, part._start = data, data, 0
        part.bytes, part.used, part.guarded = data.size, data.size, False
        part.address = int(data.ctypes.data)
        return part

    def fence(self, used: int) -> None:
        """Let the fence begin where the first `used` bytes end: the rest may be read, not written."""
        self.used = used
        self.data[used:] = FENCE

    def check(self) -> None:
        """Raise DeviceError where something wrote outside the block."""
        if not self.guarded:
            return
        # Each block that there is, after each operation: as bytes, which count themselves.
        start, end = self._start, self._start + self.bytes + LINE
        before, after = self._whole[start - LINE : start].tobytes(), self._whole[start + self.used : end].tobytes()
        if before.count(FENCE) != LINE or after.count(FENCE) != len(after):
            raise DeviceError(f"something wrote outside a buffer of {self.used} bytes")

    def poison(self) -> None:
        self.data[:] = POISON
        self.used = self.bytes


class Arena:
    """Blocks by size, from any thread. `bytes` is what it holds altogether."""

    def __init__(self, *, guarded: bool = False) -> None:
        self.guarded = guarded
        self.blocks: list[Block] = []
        self._free: list[tuple[int, int, Block]] = []
        self._returned: deque[Block] = deque()
        self._serial = 0
        self._taking = Lock()

    @property
    def bytes(self) -> int:
        return sum(block.bytes for block in self.blocks)

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes: the smallest free one that fits well, or a new one."""
        size = -(-max(size, 1) // LINE) * LINE
        with self._taking:
            while self._returned:
                self._serial += 1
                back = self._returned.popleft()
                insort(self._free, (back.bytes, self._serial, back))
            place = bisect_left(self._free, (size, -1))
            if place < len(self._free) and self._free[place][0] <= 2 * size:
                return self._free.pop(place)[2]
            block = Block(size, guarded=self.guarded)
            self.blocks.append(block)
            return block

    def give_back(self, block: Block) -> None:
        """The block's content is lost from here on.

        The garbage collector may call it at any moment and in any thread, also in the middle of `take`.
        """
        self._returned.append(block)

    def check(self) -> None:
        for block in self.blocks:
            block.check()
