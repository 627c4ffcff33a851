"""Q8_0: 32 signed weights of 8 bits, one f16 scale. Bytes: d(2) qs(32)."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import read_half, write_half
from opsin.quants._format import Half, Planes, QuantType


@np.errstate(invalid="ignore")
def decode(blocks: Bytes) -> Floats:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * read_half(blocks, 0)


def encode(values: Floats) -> Bytes:
    """Rounds half away from zero; divides by the float32 scale, though the f16 one is stored."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    head = write_half(scale)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    steps = values * inverse
    # trunc(|x| + 0.5) would round up a number just below a half, because the sum itself is rounded.
    whole = np.trunc(steps)
    q = whole + np.trunc(np.float32(2) * (steps - whole))
    return np.concatenate([head, q.astype(np.int8).view(np.uint8)], axis=1)


def unpack(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    scale[0] = half(block, 0)
    for j in range(32):
        q[j] = block[2 + j] ^ 128


PLANES = Planes(bits=8, group=32, zero=128, minimum=False, unpack=unpack)
TYPES = (QuantType("Q8_0", 8, elements=32, bytes=34, decode=decode, encode=encode, planes=PLANES),)
