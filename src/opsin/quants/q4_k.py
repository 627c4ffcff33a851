"""Q4_K: 256 weights of 4 bits in 8 groups, each with a 6-bit scale and minimum.

Bytes: d(2) dmin(2) scales(12) qs(128).
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
    q = split_bits(blocks[:, 16:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32).astype(np.float32)
    return (scale * q - minimum).reshape(-1, 256)


def encode(values: Floats) -> Bytes:
    return encode_in_chunks(values, 144, _encode_chunk)


def _encode_chunk(values: Floats) -> Bytes:
    fit = fit_with_minima(values, groups=8, top=15, limit=63)
    pairs = join_pairs(fit.scales.astype(np.uint8), fit.minima.astype(np.uint8))
    q = join_bits(fit.q.astype(np.uint8).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([write_half(fit.d), write_half(fit.dmin), pairs, q], axis=1)


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
            byte = block[16 + 32 * chunk + j]
            q[64 * chunk + j] = byte & 15
            q[64 * chunk + 32 + j] = byte >> 4


PLANES = Planes(bits=4, group=32, zero=0, minimum=True, unpack=unpack, codes=True)
TYPES = (QuantType("Q4_K", 12, elements=256, bytes=144, decode=decode, encode=encode, planes=PLANES),)
