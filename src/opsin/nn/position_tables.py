"""Tables of position embeddings of a square of patches, for pictures of other shapes: as torch resizes pictures."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats

SHARP = -0.75  # of cubics, as torch has it
Kind = Literal["linear", "cubic", "averaged"]


def interpolated(table: Floats, high: int, wide: int) -> Floats:
    """A square of position embeddings [side * side, width] for another grid: [high * wide, width], row after row.

    Bilinear, from corner to corner (torch's interpolate with align_corners).
    """
    side = math.isqrt(len(table))

    def along(values: Floats, count: int) -> Floats:  # [side, others, width] -> [count, others, width]
        places = np.linspace(0, side - 1, count)
        before = places.astype(np.int32)
        share = (places - before).astype(np.float32)[:, None, None]
        return values[before] * (1 - share) + values[np.minimum(before + 1, side - 1)] * share

    rows = along(table.reshape(side, side, -1), high)  # [high, side, width]
    return along(rows.swapaxes(0, 1), wide).swapaxes(0, 1).reshape(high * wide, -1)


def stretched(table: Floats, high: int, wide: int, kind: Kind) -> Floats:
    """A table [side * side, width] for another grid: [high * wide, width], row after row.

    torch's interpolate (align_corners=False): patches have their places in their middles, and beyond the border stands
    what stands at it. "averaged" is linear with antialias: where a grid is coarser than the table, each place gets a
    mean of all around it.
    """
    side = math.isqrt(len(table))
    square = table.reshape(side, side, -1)
    rows = np.tensordot(_shares(high, side, kind), square, 1)  # [high, side, width]
    return np.tensordot(_shares(wide, side, kind), rows, (1, 1)).swapaxes(0, 1).reshape(high * wide, -1)


def _shares(count: int, side: int, kind: Kind) -> npt.NDArray[np.float32]:
    """[count, side] how much each of `side` values has of each of `count`."""
    places = (np.arange(count) + 0.5) * side / count - 0.5
    if kind == "averaged":
        near = np.maximum(0, 1 - np.abs(np.arange(side) - places[:, None]) / max(1.0, side / count))
        return np.asarray(near / near.sum(1, keepdims=True), np.float32)
    first = np.floor(places).astype(np.int64)
    share = places - first
    parts = {0: 1 - share, 1: share} if kind == "linear" else {n: _cubic(np.abs(share - n)) for n in range(-1, 3)}
    made = np.zeros((count, side))
    for step, part in parts.items():
        np.add.at(made, (np.arange(count), np.clip(first + step, 0, side - 1)), part)
    return made.astype(np.float32)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys 1981."""
    near = ((SHARP + 2) * distance - (SHARP + 3)) * distance**2 + 1
    far = SHARP * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
