"""What is kept to be used again: rows of pictures while the tower rests, or pictures that cost much to draw.

A picture is drawn and seen once, and asked about several times; or drawn once and seen several times. The uses of one
batch come far apart, between those of others. Knows no loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from torch import Tensor

from training.stream import Batch, Talks

KEPT = 24  # batches whose rows are kept at a time


def mixed(batches: Iterator[Batch], see: Callable[[Batch], Tensor],
          several: bool) -> Iterator[tuple[Tensor, Talks, bool]]:
    """(patches, conversations, whether a new batch was drawn), of kept batches in random order if there are `several`.

    A batch with one set of conversations is used at once.
    """
    rng, kept = random.Random(0), list[tuple[Tensor, list[Talks]]]()
    while True:
        fresh = len(kept) < (KEPT if several else 1)
        if fresh:
            batch = next(batches)
            kept.append((see(batch), list(batch.talks)))
        index = rng.randrange(len(kept))
        patches, talks = kept[index]
        yield patches, talks.pop(), fresh
        if not talks:
            kept.pop(index)


def repeated(batches: Iterator[Batch], times: int) -> Iterator[tuple[Batch, bool]]:
    """(batch, whether one was drawn), every batch `times` times, of kept ones in random order if that is several."""
    rng, kept = random.Random(0), list[tuple[Batch, int]]()
    while True:
        fresh = len(kept) < (KEPT if times > 1 else 1)
        if fresh:
            kept.append((next(batches), times))
        index = rng.randrange(len(kept))
        batch, left = kept.pop(index)
        if left > 1:
            kept.append((batch, left - 1))
        yield batch, fresh
