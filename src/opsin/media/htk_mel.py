"""What some models hear of sound: how loud it is in bands of pitch, by the scale of HTK, a hundred times a second."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.media.mel import HOP
from opsin.media.sound import RATE

LENGTH, FFT = 320, 512  # samples of a frame, and with the silence behind it
_FLOOR = 0.001  # that is added to magnitudes


def whole_frames(samples: int) -> int:
    """Frames behind whose last sample another one comes, and one of what is shorter."""
    return max(1, (samples - 1) // HOP)


def htk_log_mel(samples: Floats, bands: int) -> Floats:
    """The logarithm of the magnitude in each band, and a floor: float32 [`whole_frames`, bands].

    The first frame is half silence. As transformers does it for models of the kind of Zhang et al. 2023 (arXiv
    2303.01037).
    """
    count = whole_frames(len(samples))
    behind = (count - 1) * HOP + LENGTH // 2
    padded = np.pad(samples[:behind], (LENGTH // 2, max(0, behind - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, LENGTH)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(LENGTH) / LENGTH)
    magnitudes = np.abs(np.fft.rfft(frames * hann, n=FFT, axis=1))
    heard: Floats = np.log(magnitudes @ htk_filters(bands) + _FLOOR).astype(np.float32)
    return heard


@cache
def htk_filters(bands: int) -> npt.NDArray[np.float64]:
    """How much of each frequency, of 257 from 0 to 8 kHz, each band has: [257, bands].

    Triangles of equal heights, whose corners are equally far from each other on the mel scale of the HTK book (Young et
    al. 2006): 2595 log10(1 + f / 700).
    """
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    heard = np.linspace(0, RATE / 2, FFT // 2 + 1)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (heard - low) / (middle - low), (high - heard) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))
