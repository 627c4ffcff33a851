"""Imported before NumPy and torch: what tests compare with computes with one thread.

Their tiny models gain nothing from a team, whose threads spin between operations: the conversations of
tests/models took 51 s of processor time with two threads and take 9 with one. opsin's own teams are not meant by this.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
