"""What models hear of sound: the logarithms of how loud it is in bands of pitch, a hundred times a second."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.media.sound import RATE

HOP, WINDOW = 160, 400  # samples from frame to frame, and of a frame
FRAMES = RATE // HOP  # a second
_FLOOR = 1e-10  # of power
_RANGE = 8.0  # powers of ten below the loudest band that are told apart
_PIECE = 6000  # frames that are transformed at once
_BREAK, _LINEAR = 1000.0, 3 / 200  # Hz up to which Slaney's scale is linear, and mels a Hz there


def log_mel(samples: Floats, bands: int) -> Floats:
    """Sound at 16 kHz as models of speech hear it, with silence behind it: float32 [frames, bands], mostly -1 to 1.

    A frame sees 12.5 ms before and after its moment; there are as many as see any of it. The loudest band of all frames
    is the measure (Radford et al. 2022, arXiv 2212.04356; as their log_mel_spectrogram). Computed in float64.
    """
    half = WINDOW // 2
    behind = np.pad(samples, (0, WINDOW + half))  # silence, reflected, is silence
    return _heard(np.pad(behind, (half, 0), "reflect"), -(-(len(samples) + half) // HOP), bands)


def whole_log_mel(samples: Floats, bands: int) -> Floats:
    """The same with nothing behind it, where sound goes on as its last moments did, backwards.

    There is a frame for each whole HOP of samples, of which two at least are needed.
    """
    return _heard(np.pad(samples, WINDOW // 2, "reflect"), len(samples) // HOP, bands)


def _heard(padded: Floats, count: int, bands: int) -> Floats:
    """So many frames; the first begins with the first sample."""
    logs = np.empty((count, bands), np.float32)
    for first in range(0, count, _PIECE):
        last = min(first + _PIECE, count)
        power = _power(padded[first * HOP : (last - 1) * HOP + WINDOW]) @ mel_filters(bands)
        logs[first:last] = np.log10(np.maximum(power, _FLOOR))
    heard: Floats = (np.maximum(logs, logs.max() - np.float32(_RANGE)) + 4) / 4
    return heard


def window(logs: Floats, first: int, frames: int) -> Floats:
    """`frames` frames of `log_mel` from `first` on, with silence where it has ended."""
    part = logs[first : first + frames]
    silent = np.maximum(np.float32(np.log10(_FLOOR)), logs.max() * 4 - 4 - np.float32(_RANGE))
    return np.pad(part, ((0, frames - len(part)), (0, 0)), constant_values=(silent + 4) / 4)


def _power(samples: Floats) -> npt.NDArray[np.float64]:
    """Squared magnitudes [frames, 201] of frames, under Hann's window."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    return spectrum.real**2 + spectrum.imag**2


@cache
def _hann() -> npt.NDArray[np.float64]:
    """The periodic one."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


@cache
def mel_filters(bands: int) -> npt.NDArray[np.float64]:
    """How much of each frequency, of 201 from 0 to 8 kHz, each band has: [201, bands].

    Triangles of equal areas, whose corners are equally far from each other on Slaney's mel scale (Auditory Toolbox,
    1998): linear up to 1 kHz, then logarithmic.
    """
    corners = _hertz(np.linspace(0, _mels(RATE / 2), bands + 2))
    heard = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (heard - low) / (middle - low), (high - heard) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


def _mels(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz * _LINEAR
    return float(_BREAK * _LINEAR + np.log(hertz / _BREAK) * 27 / np.log(6.4))


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = np.maximum(mels - _BREAK * _LINEAR, 0)
    return np.where(above > 0, _BREAK * np.exp(above * np.log(6.4) / 27), mels / _LINEAR)
