"""What a step tells of its logits: the likeliest ids of each row, and whole rows for those who ask.

Thread: made by each step and read until the next one, both on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from opsin.arrays import Floats, Ints

CANDIDATES = 64  # the most that a step tells: published models recommend a top_k of 20 to 64


class Candidates(NamedTuple):
    """The rows of a step that choose an id. Views, which hold until the next step.

    Attributes:
        ids: [rows, k] the likeliest, likeliest first; equal ones in the order of ids.
        logits: [rows, k] theirs.
        sums: [rows] of e**(logit - the largest) over the vocabulary; not finite where the logits are no numbers.
        whole: reads all logits, [rows, vocabulary]; it costs, and is for those alone whom the others do not serve.
    """

    ids: Ints
    logits: Floats
    sums: Floats
    whole: Callable[[], Floats]

    def of(self, rows: Sequence[int]) -> Candidates:
        """Those of some rows."""
        some, whole = list(rows), self.whole
        ids, logits, sums = self.ids[some], self.logits[some], self.sums[some]
        return Candidates(ids, logits, sums, lambda: whole()[some])
