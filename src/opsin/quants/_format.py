"""What a number format is: its block, its definition, and its planes for kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError

Half: TypeAlias = Callable[[Any, int], Any]
Unpack: TypeAlias = Callable[[Any, Any, Any, Any, Any], None]


@dataclass(frozen=True)
class Planes:
    """A format as kernels see it: w = scale * (q - zero) + minimum, with one scale for each group of weights.

    `unpack(block, half, q, scale, minimum)` takes one block apart. It is written for Numba to compile and runs as
    plain Python too: `block` uint8 [bytes], `half(block, offset)` reads a little-endian f16, `q` uint8 [elements],
    `scale` and `minimum` float32 [elements / group]. It leaves `minimum` untouched where the format has none.

    With `codes`, a block's scales (and minima) are whole numbers of -128 to 127 times one factor of the block. Then
    `unpack` writes the numbers, and after them the factor: both arrays are one longer. `paired` says that a group's
    scale and minimum are numbers of 0 to 15: they share a byte.

    With a `table`, q of 4 bits chooses one of its 16 values, which are bytes: w = scale * (table[q] - zero), zero 128.

    Both are exact float32. A file from a stranger may make them infinite, or larger than an f16: whoever stores them
    as f16 has to check.
    """

    bits: int  # 2 to 8: width of the unsigned q; 8-bit q is stored biased, q = w + 128
    group: int  # weights that share a scale: 16 or 32
    zero: int  # subtracted from q; 0 where there is a minimum
    minimum: bool  # whether each group has an additive minimum
    unpack: Unpack
    codes: bool = False  # scales are whole numbers times a factor of the block
    paired: bool = False  # scale and minimum of a group are 4 bits each
    table: tuple[int, ...] = ()  # what q stands for, where its steps are uneven


@dataclass(frozen=True)
class QuantType:
    """One number format of GGUF.

    `decode` takes blocks uint8 [n, bytes] to float32 [n, elements] and defines the format; `encode` is the way back and
    is None for formats that we only read. Formats without `planes` are decoded when they are loaded.
    """

    name: str
    id: int  # ggml's
    elements: int  # a block
    bytes: int  # a block
    decode: Callable[[Bytes], Floats]
    encode: Callable[[Floats], Bytes] | None = None
    planes: Planes | None = None

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` elements; ModelError where the row is not whole blocks."""
        if width % self.elements:
            raise ModelError(
                f"a row of {width} elements is not whole blocks of {self.name}, which holds {self.elements} a block",
                hint="keep such a tensor as F16 or BF16",
            )
        return width // self.elements * self.bytes
