"""Blocks and weights that bring out what a number format can get wrong."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.quants import QuantType

# Zero, the smallest and the largest subnormal, -0, the largest number, both infinities, two NaNs.
HARD_HALVES = np.array([0, 0x0001, 0x03FF, 0x8000, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0xFE01], dtype="<u2")


def make_blocks(kind: QuantType, count: int = 300) -> Bytes:
    """Random blocks; blocks of one byte; and each hard half at each place where a scale could be."""
    random = np.random.default_rng(kind.id)
    even = [np.full((1, kind.bytes), byte, dtype=np.uint8) for byte in (0, 0xFF, 0x80, 0x7F, 0x55)]
    hard = []
    for at in range(0, kind.bytes - 1):
        blocks = random.integers(0, 256, (len(HARD_HALVES), kind.bytes), dtype=np.uint8)
        blocks[:, at : at + 2] = HARD_HALVES.view(np.uint8).reshape(-1, 2)
        hard.append(blocks)
    return np.concatenate([random.integers(0, 256, (count, kind.bytes), dtype=np.uint8), *even, *hard])


def make_weights(elements: int, count: int = 400) -> Floats:
    """Weights as models have them, at many magnitudes, and blocks that are zero, constant, spiked or full of ties."""
    random = np.random.default_rng(elements)
    normal = random.normal(size=(count, elements)) * 10.0 ** random.integers(-7, 4, (count, 1))
    spiked = np.zeros((4, elements))
    spiked[[0, 1, 2, 3], [0, -1, elements // 2, 0]] = [1, -1, 1e-6, -3e4]
    constant = np.repeat([[0.0], [1.0], [-1.0], [1e-30], [0.1]], elements, axis=1)
    ties = random.integers(-16, 17, (40, elements)) / 2
    positive = random.uniform(1, 2, (10, elements))
    return np.concatenate([normal, spiked, constant, ties, positive, -positive]).astype(np.float32)
