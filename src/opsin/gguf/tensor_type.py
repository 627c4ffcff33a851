"""The tensor types of ggml: how many elements and bytes a block has, and where its wider scalars lie.

It does not know what the numbers in a block mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 62


@dataclass(frozen=True, slots=True)
class Scalars:
    """A run of `count` scalars of `width` bytes at byte `start` of a block: what a change of byte order swaps."""

    start: int
    width: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class TensorType:
    """One ggml type: its id in files, its name, and the elements and bytes of a block."""

    id: int
    name: str
    block_elements: int
    block_bytes: int
    scalars: tuple[Scalars, ...] = ()

    def bytes_of(self, shape: tuple[int, ...]) -> int:
        """Bytes that a tensor of `shape` takes; its rows are whole blocks."""
        return prod(shape) // self.block_elements * self.block_bytes


def _plain(type_id: int, name: str, width: int) -> TensorType:
    """A type whose block is one scalar."""
    return TensorType(type_id, name, 1, width, (Scalars(0, width),) if width > 1 else ())


def _block(type_id: int, name: str, elements: int, nbytes: int, *scalars: tuple[int, int, int]) -> TensorType:
    """A type of blocks, with its multi-byte scalars as (start, width, count)."""
    return TensorType(type_id, name, elements, nbytes, tuple(Scalars(*run) for run in scalars))


_ALL = (
    _plain(0, "F32", 4),
    _plain(1, "F16", 2),
    _block(2, "Q4_0", 32, 18, (0, 2, 1)),
    _block(3, "Q4_1", 32, 20, (0, 2, 2)),
    _block(6, "Q5_0", 32, 22, (0, 2, 1), (2, 4, 1)),
    _block(7, "Q5_1", 32, 24, (0, 2, 2), (4, 4, 1)),
    _block(8, "Q8_0", 32, 34, (0, 2, 1)),
    _block(9, "Q8_1", 32, 36, (0, 2, 2)),
    _block(10, "Q2_K", 256, 84, (80, 2, 2)),
    _block(11, "Q3_K", 256, 110, (108, 2, 1)),
    _block(12, "Q4_K", 256, 144, (0, 2, 2)),
    _block(13, "Q5_K", 256, 176, (0, 2, 2)),
    _block(14, "Q6_K", 256, 210, (208, 2, 1)),
    _block(15, "Q8_K", 256, 292, (0, 4, 1), (260, 2, 16)),
    # Two 32-bit words a group of 32, though the C struct declares them as 16-bit ones.
    _block(16, "IQ2_XXS", 256, 66, (0, 2, 1), (2, 4, 16)),
    _block(17, "IQ2_XS", 256, 74, (0, 2, 1), (2, 2, 32)),
    # The signs and scales after the 64 grid bytes are one 32-bit word a group of 32.
    _block(18, "IQ3_XXS", 256, 98, (0, 2, 1), (66, 4, 8)),
    _block(19, "IQ1_S", 256, 50, (0, 2, 1), (34, 2, 8)),
    _block(20, "IQ4_NL", 32, 18, (0, 2, 1)),
    _block(21, "IQ3_S", 256, 110, (0, 2, 1)),
    _block(22, "IQ2_S", 256, 82, (0, 2, 1)),
    _block(23, "IQ4_XS", 256, 136, (0, 2, 2)),
    _plain(24, "I8", 1),
    _plain(25, "I16", 2),
    _plain(26, "I32", 4),
    _plain(27, "I64", 8),
    _plain(28, "F64", 8),
    # The block's scale hides in the high nibbles of these four 16-bit words.
    _block(29, "IQ1_M", 256, 56, (48, 2, 4)),
    _plain(30, "BF16", 2),
    _block(34, "TQ1_0", 256, 54, (52, 2, 1)),
    _block(35, "TQ2_0", 256, 66, (64, 2, 1)),
    _block(39, "MXFP4", 32, 17),
    _block(40, "NVFP4", 64, 36),
    _block(41, "Q1_0", 128, 18, (0, 2, 1)),
    _block(42, "Q2_0", 64, 18, (0, 2, 1)),
)

TENSOR_TYPES: dict[int, TensorType] = {kind.id: kind for kind in _ALL}


def check_shape(shape: tuple[int, ...], type_id: int) -> TensorType:
    """The type of id `type_id`, if a tensor of it can have `shape` (NumPy's order). Raises ValueError if not."""
    kind = TENSOR_TYPES.get(type_id)
    if kind is None:
        raise ValueError(f"has the unknown type {type_id}")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"has {len(shape)} dimensions, more than {MAX_DIMENSIONS}")
    if any(size <= 0 for size in shape) or prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"has the impossible shape {list(shape)}")
    row = shape[-1] if shape else 1
    if row % kind.block_elements:
        raise ValueError(f"has rows of {row} elements, no multiple of the {kind.block_elements} of {kind.name}")
    return kind
