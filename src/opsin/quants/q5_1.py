"""Q5_1: 32 weights of 5 bits above an f16 minimum, one f16 scale. Bytes: d(2) m(2) qh(4) qs(16)."""

from __future__ import annotations

import numpy as np

from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Bytes, Floats, Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    low = split_bits(blocks[:, 8:], 4).reshape(-1, 32)
    high = np.unpackbits(blocks[:, 4:8], axis=1, bitorder="little")
    q = (low | (high << np.uint8(4))).astype(np.float32)
    return read_half(blocks, 0) * q + read_half(blocks, 2)


@np.errstate(over="ignore", invalid="ignore")
def encode(values: Floats) -> Bytes:
    """Spreads 32 steps evenly from the smallest weight to the largest."""
    least = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - least) / np.float32(31)
    head = np.concatenate([write_half(scale), write_half(least)], axis=1)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.clip(np.trunc((values - least) * inverse + np.float32(0.5)), 0, 31).astype(np.uint8)
    low = join_bits((q & np.uint8(15)).reshape(-1, 2, 16), 4)
    return np.concatenate([head, np.packbits(q >> np.uint8(4), axis=1, bitorder="little"), low], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    minimum[0] = half(block, 2)
    for j in range(16):
        byte = block[8 + j]
        q[j] = (byte & 15) | (((block[4 + (j >> 3)] >> (j & 7)) & 1) << 4)
        q[j + 16] = (byte >> 4) | (((block[6 + (j >> 3)] >> (j & 7)) & 1) << 4)


PLANES = Planes(bits=5, group=32, zero=0, minimum=True, unpack=unpack)
TYPES = (QuantType("Q5_1", 7, elements=32, bytes=24, decode=decode, encode=encode, planes=PLANES),)
