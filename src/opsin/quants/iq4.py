"""IQ4_NL and IQ4_XS: weights of 4 bits that choose among 16 uneven steps.

IQ4_NL bytes: d(2) qs(16), 32 weights. IQ4_XS bytes: d(2) high(2) low(4) qs(128), 8 groups of 32, each with a signed
6-bit scale whose low 4 bits lie in `low` and top 2 bits in the u16 `high`.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import read_half, split_bits
from opsin.quants._format import Half, Planes, QuantType

STEPS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)
BIASED = tuple(int(step) + 128 for step in STEPS)


@np.errstate(invalid="ignore")
def decode_nl(blocks: Bytes) -> Floats:
    return read_half(blocks, 0) * STEPS[split_bits(blocks[:, 2:], 4).reshape(-1, 32)]


@np.errstate(invalid="ignore")
def decode_xs(blocks: Bytes) -> Floats:
    low = split_bits(blocks[:, 4:8, None], 4).reshape(-1, 8)
    high = split_bits(blocks[:, 2:4, None], 2).reshape(-1, 8)
    scales = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    q = split_bits(blocks[:, 8:].reshape(-1, 8, 16), 4).reshape(-1, 8, 32)
    return ((read_half(blocks, 0) * scales)[:, :, None] * STEPS[q]).reshape(-1, 256)


def unpack_nl(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    for j in range(16):
        byte = block[2 + j]
        q[j] = byte & 15
        q[j + 16] = byte >> 4


def unpack_xs(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[8] = half(block, 0)
    for group in range(8):
        low = (block[4 + (group >> 1)] >> (4 * (group & 1))) & 15
        high = (block[2 + (group >> 2)] >> (2 * (group & 3))) & 3
        scale[group] = np.float32(np.int32(low | (high << 4)) - 32)
        for j in range(16):
            byte = block[8 + 16 * group + j]
            q[32 * group + j] = byte & 15
            q[32 * group + 16 + j] = byte >> 4


NL_PLANES = Planes(bits=4, group=32, zero=128, minimum=False, unpack=unpack_nl, table=BIASED)
XS_PLANES = Planes(bits=4, group=32, zero=128, minimum=False, unpack=unpack_xs, codes=True, table=BIASED)
TYPES = (
    QuantType("IQ4_NL", 20, elements=32, bytes=18, decode=decode_nl, planes=NL_PLANES),
    QuantType("IQ4_XS", 23, elements=256, bytes=136, decode=decode_xs, planes=XS_PLANES),
)
