"""Q2_K: 256 weights of 2 bits in 16 groups, each with a 4-bit scale and minimum.

Bytes: scales(16) qs(64) d(2) dmin(2).
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._fit import encode_in_chunks, fit_with_minima
from opsin.quants._format import Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    pairs = split_bits(blocks[:, :16], 4).astype(np.float32)  # [n, 2, 16]: scales, minima
    scale = (read_half(blocks, 80) * pairs[:, 0])[:, :, None]
    minimum = (read_half(blocks, 82) * pairs[:, 1])[:, :, None]
    q = split_bits(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16).astype(np.float32)
    return (scale * q - minimum).reshape(-1, 256)


def encode(values: Floats) -> Bytes:
    return encode_in_chunks(values, 84, _encode_chunk)


def _encode_chunk(values: Floats) -> Bytes:
    fit = fit_with_minima(values, groups=16, top=3, limit=15)
    pairs = join_bits(np.stack([fit.scales, fit.minima], axis=1).astype(np.uint8), 4)
    q = join_bits(fit.q.astype(np.uint8).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([pairs, q, write_half(fit.d), write_half(fit.dmin)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[16] = half(block, 80)
    minimum[16] = -half(block, 82)
    for j in range(16):
        scale[j] = np.float32(block[j] & 15)
        minimum[j] = np.float32(block[j] >> 4)
    for part in range(2):
        for j in range(32):
            byte = block[16 + 32 * part + j]
            q[128 * part + j] = byte & 3
            q[128 * part + 32 + j] = (byte >> 2) & 3
            q[128 * part + 64 + j] = (byte >> 4) & 3
            q[128 * part + 96 + j] = byte >> 6


PLANES = Planes(bits=2, group=16, zero=0, minimum=True, unpack=unpack, codes=True, paired=True)
TYPES = (QuantType("Q2_K", 10, elements=256, bytes=84, decode=decode, encode=encode, planes=PLANES),)
