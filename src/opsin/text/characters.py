"""What Python's tables say of every character, as arrays by code point."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from unicodedata import category

import numpy as np
import numpy.typing as npt


@cache
def read_categories() -> npt.NDArray[np.bytes_]:
    """The general category of each code point, in two letters."""
    return np.frombuffer("".join(map(category, map(chr, range(sys.maxunicode + 1)))).encode(), "S2")


def is_of(*kinds: str) -> npt.NDArray[np.bool_]:
    """Which code points are of these categories: `Mn`, or `M` for all that begin so."""
    short, long = ([kind.encode() for kind in kinds if len(kind) == size] for size in (1, 2))
    found = read_categories()
    among: npt.NDArray[np.bool_] = np.isin(found, long) | np.isin(found.view("S1")[::2], short)
    return among


def write_class(codes: Iterable[int]) -> str:
    """A class of a regular expression that holds these code points, given in order; there must be some."""
    listed = [*codes]
    breaks = [0, *(place for place, (one, other) in enumerate(pairwise(listed), 1) if other != one + 1), len(listed)]
    spans = [(listed[begin], listed[end - 1]) for begin, end in pairwise(breaks)]
    return "[" + "".join(rf"\U{low:08x}-\U{high:08x}" for low, high in spans) + "]"
