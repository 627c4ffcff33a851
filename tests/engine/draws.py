"""Whether ids were drawn as often as they are likely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def check_draws(drawn: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
    """Ids that were drawn among the four likeliest of these logits [vocabulary], at temperature 1."""
    top = np.argsort(-logits)[:4]
    shares = np.exp(logits[top] - logits[top[0]])
    shares /= shares.sum()
    counts = np.array([list(drawn).count(int(id)) for id in top])
    assert counts.sum() == len(drawn) > 100
    distance = ((counts - len(drawn) * shares) ** 2 / (len(drawn) * shares)).sum()
    assert distance < 16.3  # chi-square of 3 degrees: above it one time of a thousand
