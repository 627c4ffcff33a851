"""NVFP4: 64 weights of 4-bit floats in 4 groups, each with an E4M3 scale. Bytes: d(4) qs(32).

The values are doubled, so scales are halved. A tensor may come with one more float32 scale of its own, which lies
outside its blocks and is not applied here.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import split_bits
from opsin.quants._format import Half, Planes, QuantType
from opsin.quants._fp4 import BIASED, FP4


def _all_scales() -> Floats:
    """Half of each of the 256 E4M3 bytes, whose sign bit is ignored; 0x7F, not a number, reads as 0."""
    code = np.arange(256)
    exponent, fraction = (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, fraction * 2.0**-9, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    value[0x7F] = 0
    return (value / 2).astype(np.float32)


SCALES = _all_scales()


def decode(blocks: Bytes) -> Floats:
    q = split_bits(blocks[:, 4:].reshape(-1, 4, 8), 4).reshape(-1, 4, 16)
    return (SCALES[blocks[:, :4]][:, :, None] * FP4[q]).reshape(-1, 64)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    for group in range(4):
        scale[group] = SCALES[block[group]]
        for j in range(8):
            byte = block[4 + 8 * group + j]
            q[16 * group + j] = byte & 15
            q[16 * group + 8 + j] = byte >> 4


PLANES = Planes(bits=4, group=16, zero=128, minimum=False, unpack=unpack, table=BIASED)
TYPES = (QuantType("NVFP4", 40, elements=64, bytes=36, decode=decode, planes=PLANES),)
