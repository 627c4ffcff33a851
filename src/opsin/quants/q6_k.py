"""Q6_K: 256 weights of 6 bits around 32 in 16 groups, each with an 8-bit scale.

Bytes: ql(128) qh(64) scales(16) d(2).
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._fit import encode_in_chunks, fit_around_zero
from opsin.quants._format import Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    low = split_bits(blocks[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 256)
    high = split_bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 256)
    q = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    scale = read_half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scale[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


def encode(values: Floats) -> Bytes:
    return encode_in_chunks(values, 210, _encode_chunk)


def _encode_chunk(values: Floats) -> Bytes:
    fit = fit_around_zero(values, groups=16, half=32, limit=128)
    q = (fit.q + np.float32(32)).astype(np.uint8)
    low = join_bits((q & np.uint8(15)).reshape(-1, 2, 2, 64), 4).reshape(-1, 128)
    high = join_bits((q >> np.uint8(4)).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([low, high, fit.scales.astype(np.int8).view(np.uint8), write_half(fit.d)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[16] = half(block, 208)
    for j in range(16):
        scale[j] = np.float32((np.int32(block[192 + j]) ^ 128) - 128)  # a byte read as signed
    for part in range(2):
        for j in range(32):
            a = block[64 * part + j]
            b = block[64 * part + 32 + j]
            high = block[128 + 32 * part + j]
            q[128 * part + j] = (a & 15) | ((high & 3) << 4)
            q[128 * part + 32 + j] = (b & 15) | ((high & 12) << 2)
            q[128 * part + 64 + j] = (a >> 4) | (high & 48)
            q[128 * part + 96 + j] = (b >> 4) | ((high & 192) >> 2)


PLANES = Planes(bits=6, group=16, zero=32, minimum=False, unpack=unpack, codes=True)
TYPES = (QuantType("Q6_K", 14, elements=256, bytes=210, decode=decode, encode=encode, planes=PLANES),)
