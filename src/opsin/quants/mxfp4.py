"""MXFP4: 32 weights of 4-bit floats, one power of two as scale. Bytes: e(1) qs(16).

The values are doubled, so the scale is 2^(e - 128). Kernels keep scales as f16, which hold the powers from 2^-24 to
2^15: smaller ones become zero and larger ones infinite, as they would in F16 weights.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import ModelError
from opsin.quants._bits import join_bits, split_bits
from opsin.quants._format import Half, Planes, QuantType
from opsin.quants._fp4 import BIASED, BOUNDS, FP4


def _scale(exponents: Bytes) -> Floats:
    """2^(e - 128) as float32; the two smallest are subnormal."""
    e = exponents.astype(np.uint32)
    bits = np.where(e < 2, np.uint32(0x00200000) << np.minimum(e, 1), (e - np.minimum(e, 1)) << np.uint32(23))
    return bits.astype(np.uint32).view(np.float32)


SCALES = _scale(np.arange(256, dtype=np.uint8))


@np.errstate(over="ignore")
def decode(blocks: Bytes) -> Floats:
    return _scale(blocks[:, :1]) * FP4[split_bits(blocks[:, 1:], 4).reshape(-1, 32)]


def encode(values: Floats) -> Bytes:
    """The scale is the power of two for which the largest weight lies between 4 and 8 (FP4 ends at 6)."""
    peak = np.abs(values).max(axis=1, keepdims=True)
    if not np.isfinite(peak).all():
        raise ModelError("the weights hold a NaN or an infinity", hint="convert again from a sound checkpoint")
    exponent = np.floor(np.log2(np.where(peak > 0, peak, 1))) + np.float32(125)
    e = np.where(peak > 0, np.clip(exponent, 0, 254), 0).astype(np.uint8)
    steps = values / _scale(e)
    magnitude = np.searchsorted(BOUNDS, np.abs(steps), side="left").astype(np.uint8)
    negative = ((steps < 0) & (magnitude > 0)).astype(np.uint8)
    q = magnitude | (negative << np.uint8(3))
    return np.concatenate([e, join_bits(q.reshape(-1, 2, 16), 4)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = SCALES[block[0]]
    for j in range(16):
        byte = block[1 + j]
        q[j] = byte & 15
        q[j + 16] = byte >> 4


PLANES = Planes(bits=4, group=32, zero=128, minimum=False, unpack=unpack, table=BIASED)
TYPES = (QuantType("MXFP4", 39, elements=32, bytes=17, decode=decode, encode=encode, planes=PLANES),)
