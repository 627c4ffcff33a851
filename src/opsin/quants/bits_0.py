"""Q1_0 and Q2_0: weights of 1 and 2 bits under one f16 scale. Bytes of both: d(2) qs(16).

Q1_0 holds 128 weights that are d where the bit is set and -d where it is not; Q2_0 holds 64 that are -1 to 2 times d.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import read_half
from opsin.quants._format import Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode_1(blocks: Bytes) -> Floats:
    q = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
    return read_half(blocks, 0) * (q * np.float32(2) - np.float32(1))


@np.errstate(invalid="ignore")
def decode_2(blocks: Bytes) -> Floats:
    q = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & np.uint8(3)
    return read_half(blocks, 0) * (q.reshape(-1, 64).astype(np.float32) - np.float32(1))


def unpack_1(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    d = half(block, 0)
    for j in range(4):
        scale[j] = d
    for j in range(16):
        byte = block[2 + j]
        for bit in range(8):
            q[8 * j + bit] = ((byte >> bit) & 1) << 1


def unpack_2(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    d = half(block, 0)
    for j in range(2):
        scale[j] = d
    for j in range(16):
        byte = block[2 + j]
        for field in range(4):
            q[4 * j + field] = (byte >> (2 * field)) & 3


PLANES_1 = Planes(bits=2, group=32, zero=1, minimum=False, unpack=unpack_1)
PLANES_2 = Planes(bits=2, group=32, zero=1, minimum=False, unpack=unpack_2)
TYPES = (
    QuantType("Q1_0", 41, elements=128, bytes=18, decode=decode_1, planes=PLANES_1),
    QuantType("Q2_0", 42, elements=64, bytes=18, decode=decode_2, planes=PLANES_2),
)
