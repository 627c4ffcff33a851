"""Q4_0, Q4_1, Q5_0 and Q5_1: 32 weights of 4 or 5 bits under one f16 scale, around the middle step or above a minimum.

Bytes: d(2) m(2) qh(4) qs(16). m is the f16 minimum of the formats whose names end in 1; qh holds the fifth bits.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Half, Planes, QuantType


def _format(name: str, id: int, bits: int, *, minimum: bool) -> QuantType:
    most, zero = (1 << bits) - 1, 0 if minimum else 1 << (bits - 1)
    high = 4 if minimum else 2  # where qh begins, and qs
    low = high + 4 if bits == 5 else high

    @np.errstate(invalid="ignore")
    def decode(blocks: Bytes) -> Floats:
        q = split_bits(blocks[:, low:], 4).reshape(-1, 32)
        if bits == 5:
            q = q | np.unpackbits(blocks[:, high:low], axis=1, bitorder="little") << np.uint8(4)
        values = read_half(blocks, 0) * (q.astype(np.float32) - np.float32(zero))
        return values + read_half(blocks, 2) if minimum else values

    @np.errstate(over="ignore", invalid="ignore")
    def encode(values: Floats) -> Bytes:
        """Spreads all steps from the smallest weight to the largest, or has the weight of largest magnitude at step 0.

        Then the scale may be negative.
        """
        if minimum:
            least = values.min(axis=1, keepdims=True)
            scale = (values.max(axis=1, keepdims=True) - least) / np.float32(most)
            head = [write_half(scale), write_half(least)]
            values = values - least
        else:
            scale = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1) / np.float32(-zero)
            head = [write_half(scale)]
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        q = np.clip(np.trunc(values * inverse + np.float32(zero + 0.5)), 0, most).astype(np.uint8)
        if bits == 5:
            head.append(np.packbits(q >> np.uint8(4), axis=1, bitorder="little"))
        return np.concatenate([*head, join_bits((q & np.uint8(15)).reshape(-1, 2, 16), 4)], axis=1)

    def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, least: Floats) -> None:
        scale[0] = half(block, 0)
        if minimum:
            least[0] = half(block, 2)
        for j in range(16):
            byte = block[low + j]
            fifth = block[high + (j >> 3)] >> (j & 7) if bits == 5 else 0
            other = block[high + 2 + (j >> 3)] >> (j & 7) if bits == 5 else 0
            q[j] = (byte & 15) | ((fifth & 1) << 4)
            q[j + 16] = (byte >> 4) | ((other & 1) << 4)

    planes = Planes(bits=bits, group=32, zero=zero, minimum=minimum, unpack=unpack)
    return QuantType(name, id, elements=32, bytes=low + 16, decode=decode, encode=encode, planes=planes)


TYPES = (
    _format("Q4_0", 2, 4, minimum=False),
    _format("Q4_1", 3, 4, minimum=True),
    _format("Q5_0", 6, 5, minimum=False),
    _format("Q5_1", 7, 5, minimum=True),
)
