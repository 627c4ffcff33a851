"""Q4_0: 32 weights of 4 bits around 8, one f16 scale. Bytes: d(2) qs(16)."""

from __future__ import annotations

import numpy as np

from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Bytes, Floats, Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    q = split_bits(blocks[:, 2:], 4).reshape(-1, 32).astype(np.float32) - np.float32(8)
    return read_half(blocks, 0) * q


def encode(values: Floats) -> Bytes:
    """The weight of largest magnitude becomes -8 steps, so the scale may be negative."""
    peak = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = peak / np.float32(-8)
    head = write_half(scale)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.clip(np.trunc(values * inverse + np.float32(8.5)), 0, 15).astype(np.uint8)
    return np.concatenate([head, join_bits(q.reshape(-1, 2, 16), 4)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    for j in range(16):
        byte = block[2 + j]
        q[j] = byte & 15
        q[j + 16] = byte >> 4


PLANES = Planes(bits=4, group=32, zero=8, minimum=False, unpack=unpack)
TYPES = (QuantType("Q4_0", 2, elements=32, bytes=18, decode=decode, encode=encode, planes=PLANES),)
