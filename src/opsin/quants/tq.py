"""TQ1_0 and TQ2_0: 256 weights that are -1, 0 or 1 times one f16 scale.

TQ2_0 bytes: qs(64) d(2), 2 bits each. TQ1_0 bytes: qs(48) qh(4) d(2), five base-3 digits a byte (four in qh), kept as
a fraction of 256 so that multiplying by 3 shifts the next digit out at the top.
"""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants._bits import join_bits, read_half, split_bits, write_half
from opsin.quants._format import Half, Planes, QuantType

# Runs of bytes in TQ1_0 and their digits each: bytes 0-31, 32-47 and 48-51.
RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))
POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)


@np.errstate(invalid="ignore")
def decode_1(blocks: Bytes) -> Floats:
    digits = []
    for start, end, count in RUNS:
        shifted = blocks[:, None, start:end] * POWERS[:count, None]  # wraps at 256
        digits.append(((shifted.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)).reshape(-1, (end - start) * count))
    return read_half(blocks, 52) * (np.concatenate(digits, axis=1).astype(np.float32) - np.float32(1))


@np.errstate(invalid="ignore")
def decode_2(blocks: Bytes) -> Floats:
    q = split_bits(blocks[:, :64].reshape(-1, 2, 32), 2).reshape(-1, 256).astype(np.float32)
    return read_half(blocks, 64) * (q - np.float32(1))


def _round(values: Floats) -> tuple[Bytes, Bytes]:
    """The scale's bytes [n, 2], and each weight as 0, 1 or 2."""
    scale = np.abs(values).max(axis=1, keepdims=True)
    tail = write_half(scale)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    steps = values * inverse
    return tail, ((steps >= 0.5).astype(np.uint8) + (steps > -0.5).astype(np.uint8)).astype(np.uint8)


def encode_1(values: Floats) -> Bytes:
    tail, q = _round(values)
    parts, first = [], 0
    for start, end, count in RUNS:
        size = (end - start) * count
        digits = q[:, first : first + size].reshape(-1, count, end - start)
        number = (digits * POWERS[::-1][:count, None]).sum(axis=1, dtype=np.uint16)
        parts.append(((number * np.uint32(256) + np.uint32(242)) // np.uint32(243)).astype(np.uint8))
        first += size
    return np.concatenate([*parts, tail], axis=1)


def encode_2(values: Floats) -> Bytes:
    tail, q = _round(values)
    return np.concatenate([join_bits(q.reshape(-1, 2, 4, 32), 2).reshape(-1, 64), tail], axis=1)


def unpack_1(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    for j in range(8):
        scale[j] = np.float32(1)
    scale[8] = half(block, 52)
    for j in range(32):
        rest = np.int32(block[j])
        for n in range(5):
            q[32 * n + j] = (rest * 3) >> 8
            rest = (rest * 3) & 255
    for j in range(16):
        rest = np.int32(block[32 + j])
        for n in range(5):
            q[160 + 16 * n + j] = (rest * 3) >> 8
            rest = (rest * 3) & 255
    for j in range(4):
        rest = np.int32(block[48 + j])
        for n in range(4):
            q[240 + 4 * n + j] = (rest * 3) >> 8
            rest = (rest * 3) & 255


def unpack_2(block: Bytes, half: Half, q: Bytes, scale: Floats, minimum: Floats) -> None:
    for j in range(8):
        scale[j] = np.float32(1)
    scale[8] = half(block, 64)
    for part in range(2):
        for j in range(32):
            byte = block[32 * part + j]
            q[128 * part + j] = byte & 3
            q[128 * part + 32 + j] = (byte >> 2) & 3
            q[128 * part + 64 + j] = (byte >> 4) & 3
            q[128 * part + 96 + j] = byte >> 6


PLANES_1 = Planes(bits=2, group=32, zero=1, minimum=False, unpack=unpack_1, codes=True)
PLANES_2 = Planes(bits=2, group=32, zero=1, minimum=False, unpack=unpack_2, codes=True)
TYPES = (
    QuantType("TQ1_0", 34, elements=256, bytes=54, decode=decode_1, encode=encode_1, planes=PLANES_1),
    QuantType("TQ2_0", 35, elements=256, bytes=66, decode=decode_2, encode=encode_2, planes=PLANES_2),
)
