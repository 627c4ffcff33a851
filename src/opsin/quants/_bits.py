"""Reading and writing the fields that blocks have in common: f16 scales, nibbles, packed pairs of bits."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError


def read_half(blocks: Bytes, at: int) -> Floats:
    """The f16 at byte `at` of each block, [n, 1]."""
    return blocks[:, at : at + 2].view("<f2").astype(np.float32)


def write_half(values: Floats) -> Bytes:
    """Scales or minima [n, 1] as f16 bytes [n, 2]; ModelError where one does not fit."""
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        raise ModelError(
            "the weights hold a NaN, an infinity, or values too large for a format with f16 scales",
            hint="keep this tensor as BF16 or F32",
        )
    return halves.view(np.uint8)


def split_bits(packed: Bytes, bits: int) -> Bytes:
    """Fields of `bits` bits, lowest first, each as a run as long as the bytes: [..., k] -> [..., 8 / bits, k]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (packed[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)


def join_bits(fields: Bytes, bits: int) -> Bytes:
    """The way back from `split_bits`: [..., 8 / bits, k] -> [..., k]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    joined: Bytes = np.bitwise_or.reduce(fields << shifts, axis=-2)
    return joined
