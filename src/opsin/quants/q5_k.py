"""Q5_K: 256 weights of 5 bits in 8 groups, each with a 6-bit scale and minimum.

Bytes: d(2) dmin(2) scales(12) qh(32) qs(128).
"""

from __future__ import annotations

import numpy as np

from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._fit import encode_in_chunks, fit_with_minima
from opsin.quants._format import Bytes, Floats, Half, Planes, QuantType
from opsin.quants._pairs import join_pairs, split_pairs


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    scales, minima = split_pairs(blocks[:, 4:16])
    scale = (read_half(blocks, 0) * scales)[:, :, None]  # [n, 8, 1]
    minimum = (read_half(blocks, 2) * minima)[:, :, None]
    low = split_bits(blocks[:, 48:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    high = split_bits(blocks[:, 16:48], 1)
    q = (low | (high << np.uint8(4))).astype(np.float32)
    return (scale * q - minimum).reshape(-1, 256)


def encode(values: Floats) -> Bytes:
    return encode_in_chunks(values, 176, _encode_chunk)


def _encode_chunk(values: Floats) -> Bytes:
    fit = fit_with_minima(values, groups=8, top=31, limit=63)
    pairs = join_pairs(fit.scales.astype(np.uint8), fit.minima.astype(np.uint8))
    q = fit.q.astype(np.uint8)
    high = join_bits((q >> np.uint8(4)).reshape(-1, 8, 32), 1)
    low = join_bits((q & np.uint8(15)).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([write_half(fit.d), write_half(fit.dmin), pairs, high, low], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[8] = half(block, 0)
    minimum[8] = -half(block, 2)
    for j in range(4):
        a = block[4 + j]
        b = block[8 + j]
        c = block[12 + j]
        scale[j] = np.float32(a & 63)
        minimum[j] = np.float32(b & 63)
        scale[j + 4] = np.float32((c & 15) | ((a >> 6) << 4))
        minimum[j + 4] = np.float32((c >> 4) | ((b >> 6) << 4))
    for chunk in range(4):
        for j in range(32):
            byte = block[48 + 32 * chunk + j]
            high = block[16 + j] >> (2 * chunk)
            q[64 * chunk + j] = (byte & 15) | ((high & 1) << 4)
            q[64 * chunk + 32 + j] = (byte >> 4) | ((high & 2) << 3)


PLANES = Planes(bits=5, group=32, zero=0, minimum=True, unpack=unpack, codes=True)
TYPES = (QuantType("Q5_K", 13, elements=256, bytes=176, decode=decode, encode=encode, planes=PLANES),)
