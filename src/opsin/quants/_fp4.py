"""The 16 values of FP4 E2M1, doubled so that they are whole numbers (OCP Microscaling Formats, version 1.0)."""

from __future__ import annotations

import numpy as np

FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)
BIASED = tuple(int(value) + 128 for value in FP4)  # as the table of planes
# Halfway between neighbours: a value on a bound takes the smaller magnitude.
BOUNDS = np.array([0.5, 1.5, 2.5, 3.5, 5, 7, 10], dtype=np.float32)
