"""The KV memory of the CPU: for each layer a run of pages of keys and one of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from opsin.arrays import Bytes
from opsin.errors import ModelError, RequestError
from opsin.ops import PAGE, PageType
from opsin.ops.cpu.arena import Block
from opsin.ops.layout import SCALED, SHARED, VALUE_BITS, page_bytes

_SLACK = 512  # kernels read whole vectors of a page's last row


class KvPages:
    """`count` pages for each of `layers` layers. How a page lies is said in `kernels/attend.py`."""

    def __init__(self, *, layers: int, heads: int, width: int, count: int, kind: PageType) -> None:
        whole = {"q8_0": SHARED, "q4_0": 2 * SHARED}.get(kind, 1)
        if width % whole:
            raise RequestError(f"{kind} pages need heads of a multiple of {whole}, not {width}", hint="use f16 pages")
        self.layers, self.heads, self.width, self.count, self.kind = layers, heads, width, count, kind
        size = count * heads * page_bytes(width, kind) + _SLACK
        # Zeroed memory is mapped when it is first touched, so a large pool costs nothing until it is used.
        self.keys = [Block(size, zero=True) for _ in range(layers)]
        self.values = [Block(size, zero=True) for _ in range(layers)]

    @property
    def bytes(self) -> int:
        return sum(block.bytes for block in (*self.keys, *self.values))

    def read(self, pages: Sequence[int]) -> Bytes:
        table, size = np.asarray(pages, np.int32), self.heads * page_bytes(self.width, self.kind)
        parts = [self._part(block, table).reshape(len(table), size) for block in (*self.keys, *self.values)]
        return np.concatenate(parts, axis=1)

    def write(self, pages: Sequence[int], contents: Bytes) -> None:
        blocks = (*self.keys, *self.values)
        size = self.heads * page_bytes(self.width, self.kind)
        if contents.shape != (len(pages), size * len(blocks)):
            raise ModelError(f"{len(pages)} pages of {size * len(blocks)} bytes, and {contents.shape} were given")
        for number, block in enumerate(blocks):
            whole = block.data[: self.count * size].reshape(self.count, size)
            whole[np.asarray(pages, np.int32)] = contents[:, number * size : (number + 1) * size]

    def rows(self, layer: int, table: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Keys and values of some pages as [rows, heads, width]: for inspection, slow."""
        keys, values = (self._part(block, table) for block in (self.keys[layer], self.values[layer]))
        k = self._floats(keys, (self.width, PAGE), (self.width // SHARED, PAGE), 0)
        v = self._floats(values, (PAGE, self.width), (PAGE, self.width // SHARED), 1)
        rows = len(table) * PAGE
        return (
            k.transpose(0, 3, 1, 2).reshape(rows, self.heads, self.width),
            v.transpose(0, 2, 1, 3).reshape(rows, self.heads, self.width),
        )

    def _part(self, block: Block, table: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        size = page_bytes(self.width, self.kind)
        whole = block.data[: self.count * self.heads * size].reshape(self.count, self.heads, size)
        return np.ascontiguousarray(whole[table])  # [pages, heads, bytes]

    def _floats(
        self, raw: npt.NDArray[np.uint8], shape: tuple[int, int], scales: tuple[int, int], axis: int
    ) -> npt.NDArray[np.float32]:
        if self.kind not in SCALED:
            kind = np.float32 if self.kind == "f32" else np.float16
            return raw.view(kind).astype(np.float32).reshape(*raw.shape[:2], *shape)
        size = self.width * PAGE * VALUE_BITS[self.kind] // 8
        whole = np.ascontiguousarray(raw[..., :size])
        numbers = whole.view(np.int8) if self.kind == "q8_0" else _four(whole.reshape(*raw.shape[:2], -1), axis)
        q = numbers.astype(np.float32).reshape(*raw.shape[:2], *shape)
        s = np.ascontiguousarray(raw[..., size:]).view(np.float16).astype(np.float32).reshape(*raw.shape[:2], *scales)
        product: npt.NDArray[np.float32] = q * np.repeat(s, SHARED, axis=2 + axis)
        return product


def _four(raw: Bytes, axis: int) -> npt.NDArray[np.int8]:
    """Numbers of 4 bits of keys (axis 0) or values, [pages, heads, bytes], in order."""
    halves = np.stack((raw & 15, raw >> 4)).astype(np.int8) - 8
    apart = halves.reshape(2, *raw.shape[:2], -1, SHARED if axis else PAGE)
    return np.moveaxis(apart, 0, 3)
