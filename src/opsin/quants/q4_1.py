"""Q4_1: 32 weights of 4 bits above an f16 minimum, one f16 scale. Bytes: d(2) m(2) qs(16)."""

from __future__ import annotations

import numpy as np

from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Bytes, Floats, Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    q = split_bits(blocks[:, 4:], 4).reshape(-1, 32).astype(np.float32)
    return read_half(blocks, 0) * q + read_half(blocks, 2)


@np.errstate(over="ignore", invalid="ignore")
def encode(values: Floats) -> Bytes:
    """Spreads 16 steps evenly from the smallest weight to the largest."""
    low = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - low) / np.float32(15)
    head = np.concatenate([write_half(scale), write_half(low)], axis=1)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.clip(np.trunc((values - low) * inverse + np.float32(0.5)), 0, 15).astype(np.uint8)
    return np.concatenate([head, join_bits(q.reshape(-1, 2, 16), 4)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    minimum[0] = half(block, 2)
    for j in range(16):
        byte = block[4 + j]
        q[j] = byte & 15
        q[j + 16] = byte >> 4


PLANES = Planes(bits=4, group=32, zero=0, minimum=True, unpack=unpack)
TYPES = (QuantType("Q4_1", 3, elements=32, bytes=20, decode=decode, encode=encode, planes=PLANES),)
