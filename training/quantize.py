"""Encodes matrices as Q4_K: 256 values in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum.

A group's value is `d * scale * q - dmin * minimum`; scale and minimum are fitted by least squares, a few rounds.
"""

from __future__ import annotations

import numpy as np


def fit_groups(x: np.ndarray, rounds: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scale and (non-negative) minimum of each group; x [groups, 32] -> two arrays [groups]."""
    low = np.minimum(x.min(1), 0)
    scale = np.maximum((x.max(1) - low) / 15, 1e-12)
    minimum = -low
    for _ in range(rounds):
        q = np.clip(np.rint((x + minimum[:, None]) / scale[:, None]), 0, 15)
        mean_q, mean_x = q.mean(1), x.mean(1)
        across = ((q - mean_q[:, None]) ** 2).sum(1)
        slope = ((q - mean_q[:, None]) * (x - mean_x[:, None])).sum(1) / np.maximum(across, 1e-9)
        fits = (across > 0) & (slope > 0)
        scale = np.where(fits, slope, scale)
        minimum = np.where(fits, np.maximum(slope * mean_q - mean_x, 0), minimum)
    return scale, minimum


def encode_q4_k(values: np.ndarray) -> np.ndarray:
    """A matrix whose rows are a multiple of 256 long -> bytes [rows, row length / 256 * 144]."""
    rows, width = values.shape
    if width % 256:
        raise ValueError(f"Q4_K needs rows of a multiple of 256 values, not {width}")
    x = values.astype(np.float32).reshape(-1, 32)
    scale, minimum = (part.reshape(-1, 8) for part in fit_groups(x))
    d = (scale.max(1, keepdims=True) / 63).astype(np.float16)
    dmin = (minimum.max(1, keepdims=True) / 63).astype(np.float16)

    def six(part: np.ndarray, unit: np.ndarray) -> np.ndarray:
        whole = np.where(unit > 0, part / np.maximum(unit.astype(np.float32), 1e-12), 0)
        return np.clip(np.rint(whole), 0, 63).astype(np.uint8)

    s, m = six(scale, d), six(minimum, dmin)
    real = np.maximum((d.astype(np.float32) * s).reshape(-1, 1), 1e-12)
    offset = (dmin.astype(np.float32) * m).reshape(-1, 1)
    q = np.clip(np.rint((x + offset) / real), 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = np.empty((len(s), 12), np.uint8)
    packed[:, 0:4] = s[:, :4] | ((s[:, 4:] >> 4) << 6)
    packed[:, 4:8] = m[:, :4] | ((m[:, 4:] >> 4) << 6)
    packed[:, 8:12] = (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)
    nibbles = (q[:, :, 0] | (q[:, :, 1] << 4)).reshape(-1, 128)
    blocks = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), packed, nibbles], 1)
    return blocks.reshape(rows, -1)
