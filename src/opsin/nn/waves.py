"""Places as waves, which are added to what stands there."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Floats

SLOWEST = 10000.0


def waves(places: int, width: int) -> Floats:
    """Sines, then cosines, of places from 0 on: float32 [places, width], each pair slower than the one before.

    Vaswani et al. 2017 (arXiv 1706.03762, section 3.5), halves apart and the slowest exactly SLOWEST times the fastest,
    as in tensor2tensor.
    """
    pairs = width // 2
    slowness = np.exp(-np.log(SLOWEST) / max(1, pairs - 1) * np.arange(pairs))
    turns = np.arange(places)[:, None] * slowness
    return np.concatenate([np.sin(turns), np.cos(turns)], axis=1).astype(np.float32)
