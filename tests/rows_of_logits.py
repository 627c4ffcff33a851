"""Candidates of given logits, as a step would tell them, and the choice of an id row by row, as it once was made."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from opsin.engine.candidates import Candidates
from opsin.engine.draws import Draw, sample
from opsin.engine.sampling import damaged, top_ids
from opsin.ops.reference import Reference


def any_row(most):
    """A strategy: rows of 1 to `most` logits, among which are many equal ones and minus infinity."""
    some, any_value = st.sampled_from([0.0, -0.0, 1.0, 2.0, -np.inf]), st.floats(-50, 50, width=32)
    return hnp.arrays(np.float32, st.integers(1, most), elements=st.one_of(some, any_value))


def candidates_of(logits, k=64):
    """What a step tells of rows of logits [rows, vocabulary]."""
    ops = Reference(wide=True)
    with np.errstate(all="ignore"):
        ids, values, sums = (y.numpy() for y in ops.candidates(ops.constant(logits), min(k, logits.shape[1])))
    return Candidates(ids, values.astype(np.float32), sums.astype(np.float32), lambda: logits)


def choose(sampler, logits, k=64, **steering):
    """One id for one row of logits. Raises what stands in its place."""
    (chosen,) = sample(candidates_of(logits[None], k), [Draw(sampler, **steering)])
    if isinstance(chosen, Exception):
        raise chosen
    return chosen


def choose_by_itself(sampler, logits):
    """The oracle: one row, by NumPy's functions for one row."""
    s = sampler.sampling
    best = int(logits.argmax())  # NaN counts as the largest
    if not np.isfinite(logits[best]):
        raise damaged()
    if s.greedy:
        return best
    ids = top_ids(logits, s.top_k)
    wide = logits[ids].astype(np.float64)
    with np.errstate(over="ignore"):
        p = np.exp((wide - wide[0]) / s.temperature)
    p /= p.sum()
    keep = p >= s.min_p * p[0]
    if s.top_p < 1.0:
        keep &= np.concatenate(([True], np.cumsum(p)[:-1] < s.top_p))
    ids, p = ids[keep], p[keep]
    place = int(np.searchsorted(np.cumsum(p), sampler.roll() * p.sum(), side="right"))
    return int(ids[min(place, len(ids) - 1)])
