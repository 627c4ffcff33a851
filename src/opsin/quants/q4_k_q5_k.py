"""Q4_K and Q5_K: 256 weights of 4 or 5 bits in 8 groups, each with a 6-bit scale and minimum.

Bytes: d(2) dmin(2) scales(12) qh(32) qs(128). qh holds the fifth bits of Q5_K.

With bytes a[4] b[4] c[4] of the 12: the first four scales and minima are the low 6 bits of a and b; the last four have
their low 4 bits in the halves of c and their top 2 bits in the top of a and b.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._fit import encode_in_chunks, fit_with_minima
from opsin.quants._format import Half, Planes, QuantType

HIGH = 16  # where qh begins, or qs where there is none


def split_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """12 bytes [n, 12] to 8 scales and 8 minima, each [n, 8], 0 to 63."""
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([a & np.uint8(63), (c & np.uint8(15)) | ((a >> np.uint8(6)) << np.uint8(4))], axis=1)
    minima = np.concatenate([b & np.uint8(63), (c >> np.uint8(4)) | ((b >> np.uint8(6)) << np.uint8(4))], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def join_pairs(scales: Bytes, minima: Bytes) -> Bytes:
    """The way back from `split_pairs`."""
    low, high = scales[:, :4], scales[:, 4:]
    low_min, high_min = minima[:, :4], minima[:, 4:]
    a = low | ((high >> np.uint8(4)) << np.uint8(6))
    b = low_min | ((high_min >> np.uint8(4)) << np.uint8(6))
    c = (high & np.uint8(15)) | ((high_min & np.uint8(15)) << np.uint8(4))
    return np.concatenate([a, b, c], axis=1)


def _format(name: str, id: int, bits: int) -> QuantType:
    low = HIGH + 32 if bits == 5 else HIGH  # where qs begins
    size = low + 128

    @np.errstate(invalid="ignore")
    def decode(blocks: Bytes) -> Floats:
        scales, minima = split_pairs(blocks[:, 4:HIGH])
        scale = (read_half(blocks, 0) * scales)[:, :, None]  # [n, 8, 1]
        minimum = (read_half(blocks, 2) * minima)[:, :, None]
        q = split_bits(blocks[:, low:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
        if bits == 5:
            q = q | split_bits(blocks[:, HIGH:low], 1) << np.uint8(4)
        return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)

    def encode(values: Floats) -> Bytes:
        return encode_in_chunks(values, size, encode_chunk)

    def encode_chunk(values: Floats) -> Bytes:
        fit = fit_with_minima(values, groups=8, top=(1 << bits) - 1, limit=63)
        head = [write_half(fit.d), write_half(fit.dmin)]
        head.append(join_pairs(fit.scales.astype(np.uint8), fit.minima.astype(np.uint8)))
        q = fit.q.astype(np.uint8)
        if bits == 5:
            head.append(join_bits((q >> np.uint8(4)).reshape(-1, 8, 32), 1))
        return np.concatenate([*head, join_bits((q & np.uint8(15)).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)], axis=1)

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
                byte = block[low + 32 * chunk + j]
                high = (block[HIGH + j] >> (2 * chunk)) if bits == 5 else 0
                q[64 * chunk + j] = (byte & 15) | ((high & 1) << 4)
                q[64 * chunk + 32 + j] = (byte >> 4) | ((high & 2) << 3)

    planes = Planes(bits=bits, group=32, zero=0, minimum=True, unpack=unpack, codes=True)
    return QuantType(name, id, elements=256, bytes=size, decode=decode, encode=encode, planes=planes)


TYPES = (_format("Q4_K", 12, 4), _format("Q5_K", 13, 5))
