"""Where nobody speaks: a word behind a pause begins where sound begins, and the one before it ends where it ends."""

from __future__ import annotations

import numpy as np

from opsin.arrays import Floats

_SOFTEST, _LOUDEST, _SHARE = 0.05, 0.9, 0.25  # of frames; how far between these loudnesses a pause may reach
_LEAST = 12  # frames: the silence within a consonant is shorter
_NEAR = 4  # frames that a border between words may lie beside a pause


def pauses(logs: Floats) -> list[tuple[int, int]]:
    """First frames of pauses and those behind their last ones, in log-mel [frames, bands]."""
    loudness = logs.mean(1)
    soft, loud = np.quantile(loudness, (_SOFTEST, _LOUDEST))
    is_quiet = loudness < soft + _SHARE * (loud - soft)
    edges = np.flatnonzero(np.diff(is_quiet, prepend=False, append=False)).reshape(-1, 2)
    return [(first, last) for first, last in edges.tolist() if last - first >= _LEAST]


def spread(borders: list[int], quiet: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Where what is before each border ends, and where what is behind it begins, in frames.

    The last border at a pause is spread over it, so that a word which lies in one keeps its place.
    """
    ends, begins = list(borders), list(borders)
    for first, last in quiet:
        near = [n for n, border in enumerate(borders) if first - _NEAR <= border <= last + _NEAR]
        if near:
            ends[near[-1]], begins[near[-1]] = first, last
    return ends, begins
