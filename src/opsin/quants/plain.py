"""F32, F16, BF16, F64 and the integers: one element a block, no scales."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError
from opsin.quants._format import QuantType


def _read(kind: str, id: int, dtype: str) -> QuantType:
    """A type that is decoded by a cast; float32 holds integers exactly up to 2^24."""

    def decode(blocks: Bytes) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            return blocks.view(dtype).astype(np.float32)

    return QuantType(kind, id, elements=1, bytes=np.dtype(dtype).itemsize, decode=decode)


def decode_f32(blocks: Bytes) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def encode_f32(values: Floats) -> Bytes:
    return values.astype("<f4").view(np.uint8)


@np.errstate(invalid="ignore")
def decode_f16(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def encode_f16(values: Floats) -> Bytes:
    with np.errstate(over="ignore", invalid="ignore"):
        halves = values.astype("<f2")
    if (np.isinf(halves) & np.isfinite(values)).any():
        raise ModelError("a weight is too large for F16", hint="keep this tensor as BF16 or F32")
    return halves.view(np.uint8)


def decode_bf16(blocks: Bytes) -> Floats:
    return (blocks.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode_bf16(values: Floats) -> Bytes:
    """Rounds to nearest even; a NaN stays one, and quiet."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    # A sum that carries out of 32 bits can only come from a NaN, which is replaced.
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").view(np.uint8)


TYPES = (
    QuantType("F32", 0, elements=1, bytes=4, decode=decode_f32, encode=encode_f32),
    QuantType("F16", 1, elements=1, bytes=2, decode=decode_f16, encode=encode_f16),
    QuantType("BF16", 30, elements=1, bytes=2, decode=decode_bf16, encode=encode_bf16),
    _read("I8", 24, "<i1"),
    _read("I16", 25, "<i2"),
    _read("I32", 26, "<i4"),
    _read("I64", 27, "<i8"),
    _read("F64", 28, "<f8"),
)
