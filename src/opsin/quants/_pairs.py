"""The 12 bytes in which Q4_K and Q5_K keep 8 scales and 8 minima of 6 bits each.

With bytes a[4] b[4] c[4]: the first four scales and minima are the low 6 bits of a and b; the last four have their low
4 bits in the halves of c and their top 2 bits in the top of a and b.
"""

from __future__ import annotations

import numpy as np

from opsin.quants._format import Bytes, Floats


def split_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """12 bytes [n, 12] to 8 scales and 8 minima, each [n, 8], 0 to 63."""
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([a & np.uint8(63), (c & np.uint8(15)) | ((a >> np.uint8(6)) << np.uint8(4))], axis=1)
    minima = np.concatenate([b & np.uint8(63), (c >> np.uint8(4)) | ((b >> np.uint8(6)) << np.uint8(4))], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def join_pairs(scales: Bytes, minima: Bytes) -> Bytes:
    """The way back from `split_pairs`."""
    low, high = scales[:, :4], scales[:, 4:]
    low_min, high_min = minima[:, :4], minima[:, 4:]
    a = low | ((high >> np.uint8(4)) << np.uint8(6))
    b = low_min | ((high_min >> np.uint8(4)) << np.uint8(6))
    c = (high & np.uint8(15)) | ((high_min & np.uint8(15)) << np.uint8(4))
    return np.concatenate([a, b, c], axis=1)
