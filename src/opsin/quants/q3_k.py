"""Q3_K: 256 weights of 3 bits around 4 in 16 groups, each with a signed 6-bit scale.

Bytes: hmask(32) qs(64) scales(12) d(2). The scales lie as a[8] b[4]: their low 4 bits in the low, then the high halves
of a; their top 2 bits in the four fields of b.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._fit import encode_in_chunks, fit_around_zero
from opsin.quants._format import Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    low = split_bits(blocks[:, 96:104], 4).reshape(-1, 16)
    top = split_bits(blocks[:, 104:108], 2).reshape(-1, 16)
    scales = (low | (top << np.uint8(4))).astype(np.float32) - np.float32(32)
    scale = (read_half(blocks, 108) * scales)[:, :, None]
    high = split_bits(blocks[:, :32], 1).reshape(-1, 16, 16)
    bits = split_bits(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    q = (bits | (high << np.uint8(2))).astype(np.float32) - np.float32(4)
    values: Floats = (scale * q).reshape(-1, 256)
    return values


def encode(values: Floats) -> Bytes:
    return encode_in_chunks(values, 110, _encode_chunk)


def _encode_chunk(values: Floats) -> Bytes:
    fit = fit_around_zero(values, groups=16, half=4, limit=32)
    q = (fit.q + np.float32(4)).astype(np.uint8)
    scales = (fit.scales + np.float32(32)).astype(np.uint8)
    high = join_bits((q >> np.uint8(2)).reshape(-1, 8, 32), 1)
    bits = join_bits((q & np.uint8(3)).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    low = join_bits((scales & np.uint8(15)).reshape(-1, 2, 8), 4)
    top = join_bits((scales >> np.uint8(4)).reshape(-1, 4, 4), 2)
    return np.concatenate([high, bits, low, top, write_half(fit.d)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[16] = half(block, 108)
    for j in range(8):
        byte = block[96 + j]
        top = block[104 + (j & 3)] >> (2 * (j >> 2))  # this scale's field, and two above it that of j + 8
        scale[j] = np.float32(np.int32((byte & 15) | ((top & 3) << 4)) - 32)
        scale[j + 8] = np.float32(np.int32((byte >> 4) | (top & 48)) - 32)
    for part in range(2):
        for j in range(32):
            byte = block[32 + 32 * part + j]
            high = block[j] >> (4 * part)
            q[128 * part + j] = (byte & 3) | ((high & 1) << 2)
            q[128 * part + 32 + j] = ((byte >> 2) & 3) | ((high & 2) << 1)
            q[128 * part + 64 + j] = ((byte >> 4) & 3) | (high & 4)
            q[128 * part + 96 + j] = (byte >> 6) | ((high & 8) >> 1)


PLANES = Planes(bits=3, group=16, zero=4, minimum=False, unpack=unpack, codes=True)
TYPES = (QuantType("Q3_K", 11, elements=256, bytes=110, decode=decode, encode=encode, planes=PLANES),)
