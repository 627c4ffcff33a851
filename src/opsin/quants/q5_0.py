"""Q5_0: 32 weights of 5 bits around 16, one f16 scale. Bytes: d(2) qh(4) qs(16)."""

from __future__ import annotations

import numpy as np

from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Bytes, Floats, Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    low = split_bits(blocks[:, 6:], 4).reshape(-1, 32)
    high = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    q = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(16)
    return read_half(blocks, 0) * q


def encode(values: Floats) -> Bytes:
    """The weight of largest magnitude becomes -16 steps, so the scale may be negative."""
    peak = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = peak / np.float32(-16)
    head = write_half(scale)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.clip(np.trunc(values * inverse + np.float32(16.5)), 0, 31).astype(np.uint8)
    low = join_bits((q & np.uint8(15)).reshape(-1, 2, 16), 4)
    return np.concatenate([head, np.packbits(q >> np.uint8(4), axis=1, bitorder="little"), low], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    for j in range(16):
        byte = block[6 + j]
        q[j] = (byte & 15) | (((block[2 + (j >> 3)] >> (j & 7)) & 1) << 4)
        q[j + 16] = (byte >> 4) | (((block[4 + (j >> 3)] >> (j & 7)) & 1) << 4)


PLANES = Planes(bits=5, group=32, zero=16, minimum=False, unpack=unpack)
TYPES = (QuantType("Q5_0", 6, elements=32, bytes=22, decode=decode, encode=encode, planes=PLANES),)
