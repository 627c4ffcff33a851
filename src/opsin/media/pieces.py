"""Where a long sound is cut: at its quietest moment, so that nobody is cut off within a word."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from opsin.arrays import Floats
from opsin.media.mel import HOP
from opsin.media.sound import RATE

_SEARCHED = 1 / 3  # of a piece, at its end
_STILL = 20  # steps of HOP samples that are quiet together: 0.2 seconds


def pieces(samples: Floats, seconds: float) -> Iterator[tuple[int, int]]:
    """Parts of a sound at 16 kHz, each of so many seconds at most: its first sample and the one behind its last."""
    first, most = 0, round(seconds * RATE)
    while len(samples) - first > most:
        searched = first + round(most * (1 - _SEARCHED))
        last = searched + _quietest(samples[searched : first + most])
        yield first, last
        first = last
    yield first, len(samples)


def _quietest(samples: Floats) -> int:
    """The middle of the quietest moment."""
    steps = samples[: len(samples) // HOP * HOP].reshape(-1, HOP).astype(np.float64)
    power = np.convolve((steps**2).mean(1), np.ones(_STILL), "valid")
    return (int(power.argmin()) + _STILL // 2) * HOP
