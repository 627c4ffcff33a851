"""How far one model's predictions are from another's: Kullback-Leibler divergence over the vocabulary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def divergence(reference: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(reference || other) in nats a row, from logits [rows, vocabulary]."""
    if reference.shape != other.shape:
        raise ValueError(f"logits of {reference.shape} cannot be compared with logits of {other.shape}")
    return np.array([_row(p, q) for p, q in zip(reference, other, strict=True)])


def _row(reference: NDArray[np.float32], other: NDArray[np.float32]) -> np.float64:
    log_p, log_q = _log_softmax(reference), _log_softmax(other)
    return np.sum(np.exp(log_p) * (log_p - log_q))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted))))
