"""Attention whose scores fall with distance, in place of positions (ALiBi; Press et al. 2021, arXiv 2108.12409)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opsin.arrays import Floats

if TYPE_CHECKING:
    from opsin.ops import Array


@dataclass(frozen=True, eq=False)
class Alibi:
    """What is added to the score of row i and key j in head h: -slopes[h] * |places[i] - j|.

    Attributes:
        slopes: float32 [heads].
        places: int32 [rows], where each row stands in its sequence.
    """

    slopes: Array
    places: Array


def alibi_slopes(heads: int, most: float = 8.0) -> Floats:
    """float32 [heads]: powers of one number, down to 2**-most, as in the paper's section 3.

    A number of heads that is no power of 2 has those of the power below it, and then every other one of twice as many.
    """
    power = 1 << (heads.bit_length() - 1)
    first = 2.0 ** (-most * np.arange(1, power + 1) / power)
    between = 2.0 ** (-most * np.arange(1, 2 * power, 2) / (2 * power))
    return np.concatenate([first, between[: heads - power]]).astype(np.float32)
