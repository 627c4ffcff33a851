"""Ids in the order of their logits: the likeliest of a row, and keys that sort many rows at once.

Thread: the engine's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.errors import FileError

Keys = npt.NDArray[np.uint64]
NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # a key behind all others
_BLOCK = 64  # for finding the top k: maxima of so many logits bound the k-th largest value from below
_SIGN, _LOW = np.uint32(0x80000000), np.uint64(0xFFFFFFFF)


def keys_of(logits: Floats, ids: npt.NDArray[np.integer]) -> Keys:
    """One number for each id and its float32 logit: ascending ones stand for falling logits, equal ones by ids."""
    bits = (logits.astype(np.float32) + np.float32(0)).view(np.uint32)  # minus zero becomes zero
    falling = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    keys: Keys = falling.astype(np.uint64) << np.uint64(32) | ids.astype(np.uint64)
    return keys


def read_keys(keys: Keys) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The logits and ids of keys."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling & _SIGN, falling, ~(falling | _SIGN))
    return bits.view(np.float32), (keys & _LOW).astype(np.int64)


def top_ids(logits: Floats, k: int) -> npt.NDArray[np.intp]:
    """The k likeliest ids, likeliest first; equal logits in the order of ids. k = 0 takes all.

    Raises FileError where a logit is no number.
    """
    n = len(logits)
    whole = n // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(_BLOCK, -1).max(0)  # of columns: NumPy takes whole vectors then
    if np.isnan(maxima).any() or np.isnan(logits[whole:]).any():  # a maximum with NaN is NaN
        raise damaged()
    if k == 0 or k >= n:
        return np.argsort(-logits, kind="stable")
    candidates = np.arange(n) if len(maxima) <= k else _reaching(logits, maxima, k)
    order = np.argsort(-logits[candidates], kind="stable")[:k]
    return candidates[order]


def damaged() -> FileError:
    """Of logits from which nothing can be chosen."""
    return FileError("the model gave logits that are no numbers", hint="the file is damaged, or overflows")


def _reaching(logits: Floats, maxima: Floats, k: int) -> npt.NDArray[np.intp]:
    """Ids that reach the k-th largest maximum of a column, in order: at least k do, so the top k are among them."""
    bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    columns = np.flatnonzero(maxima >= bound)
    inside = (np.arange(_BLOCK)[:, None] * len(maxima) + columns).reshape(-1)
    candidates: npt.NDArray[np.intp] = np.concatenate((inside, np.arange(len(maxima) * _BLOCK, len(logits))))
    kept: npt.NDArray[np.intp] = candidates[logits[candidates] >= bound]
    return kept
