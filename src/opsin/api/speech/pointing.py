"""Where each id of a text begins in a sound: some heads of a decoder look there right before they write it.

A window tells which heads do: those that look sharply and go forward (filtering without labels, as Yeh, Meng and Tang
2025, arXiv 2509.09987). Of the published lists of heads, half look a word ahead, and the borders between what two ids
look at lie half a word early for a sharp head; so the places themselves are taken. They never go back: of all such ways
the one that is nearest to what the heads look at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats, Ints

_HEADS = 6  # that are believed: a quarter of the smallest model's; three to eight do nearly as well
_FORWARD = 0.9  # correlation of ids and places from which a head goes forward


@dataclass
class Pointers:
    """The heads of a window that point, found while layers come.

    Attributes:
        first: the id whose row before it is the first that counts.
        rows: of sound.
    """

    first: int
    rows: int
    _best: list[tuple[bool, float, Floats]] = field(default_factory=list)

    def see(self, weights: Floats) -> None:
        """A layer's weights [ids, heads, rows or more], of all ids."""
        shares = weights[self.first - 1 :, :, : self.rows].transpose(1, 0, 2)
        shares = shares / np.maximum(shares.sum(-1, keepdims=True), 1e-30)
        sharpness = np.sqrt(np.square(shares).sum(-1)).mean(-1)
        forward = _forward(shares @ np.arange(self.rows, dtype=np.float32))
        self._best += zip((forward >= _FORWARD).tolist(), sharpness.tolist(), shares, strict=True)
        self._best = sorted(self._best, key=lambda found: found[:2], reverse=True)[:_HEADS]
        self._best = [(goes, sharp, head.copy()) for goes, sharp, head in self._best]  # the layer's others are let go

    def rows_of_ids(self) -> Ints:
        """Of each id the row where it begins, and one more: where they end."""
        return nearest_way(np.mean([shares for *_, shares in self._best], axis=0))


def _forward(places: Floats) -> npt.NDArray[np.float64]:
    """The correlation of each head's places [heads, ids] with the order of the ids."""
    order = np.arange(places.shape[1]) - (places.shape[1] - 1) / 2
    apart = places - places.mean(1, keepdims=True)
    size = np.sqrt(np.square(apart).sum(1) * np.square(order).sum())
    return np.asarray((apart @ order) / np.maximum(size, 1e-9), np.float64)


def nearest_way(shares: Floats) -> Ints:
    """Rows that never go back, one an id, whose distance to where shares [ids, rows] are is least in all."""
    ids, rows = shares.shape
    places, whole = np.arange(rows), np.cumsum(shares, -1, dtype=np.float64)
    sums = np.cumsum(shares * places, -1, dtype=np.float64)
    costs = places * (2 * whole - whole[:, -1:]) + sums[:, -1:] - 2 * sums  # of each row, to all that an id looks at
    for id in range(1, ids):
        costs[id] += np.minimum.accumulate(costs[id - 1])
    way, end = np.zeros(ids, np.int32), rows
    for id in range(ids - 1, -1, -1):
        way[id] = costs[id, :end].argmin()
        end = int(way[id]) + 1
    return way
