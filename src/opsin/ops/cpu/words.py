"""Arguments as compiled code takes them: int64 words; a float is its float32 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def words(*values: float) -> npt.NDArray[np.int64]:
    """The words of integers (as they are) and floats (as float32 bits)."""
    return np.array([v if isinstance(v, int) else float_bits(v) for v in values], np.int64)


def float_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))
