"""How likely the model held a token that was chosen, and its rivals: of its logits, before any parameter of sampling.

Thread: the engine's makes them; finished ones are anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.arrays import Floats
from opsin.engine.ranking import top_ids


@dataclass(frozen=True)
class Logprobs:
    """Natural logarithms of probabilities. `chosen` and each of `likeliest` are (id, log-probability).

    `begins`: an answer begins with them, whose text has no space there though the id has one.
    """

    chosen: tuple[int, float]
    likeliest: tuple[tuple[int, float], ...]
    begins: bool = False


def logprobs(logits: Floats, id: int, most: int) -> Logprobs:
    """Log-softmax of logits [vocabulary] at `id` and at the `most` likeliest ids, likeliest first."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    ids = top_ids(logits, most) if most else ()
    return Logprobs((id, float(wide[id])), tuple((int(i), float(wide[i])) for i in ids))
