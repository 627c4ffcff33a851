"""Candidates of given logits, as a step would tell them, and the choice of an id row by row, as it once was made."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from opsin.engine.candidates import Candidates
from opsin.engine.draws import sample
from opsin.engine.ranking import damaged, top_ids
from opsin.engine.steering import Draw
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
    return choose_some(sampler, logits, 1, k, **steering)[0]


def choose_some(sampler, logits, count, k=64, **steering):
    """So many ids for the same row of logits."""
    told, ids = candidates_of(logits[None], k), []
    for _ in range(count):
        (chosen,) = sample(told, [Draw(sampler, **steering)])
        if isinstance(chosen, Exception):
            raise chosen
        ids.append(chosen)
    return ids


def choose_by_itself(sampler, logits):
    """The oracle: one row, by NumPy's functions for one row."""
    s = sampler.sampling
    best = int(logits.argmax())  # NaN counts as the largest
    if not np.isfinite(logits[best]):
        raise damaged()
    if s.temperature == 0 or s.top_k == 1:
        return best
    ids = top_ids(logits, s.top_k)
    wide = logits[ids].astype(np.float64)
    wide -= wide[0]
    shares = np.exp(wide)
    keep = shares >= s.min_p
    if s.top_p < 1.0:
        reached = np.cumsum(shares)
        keep &= np.concatenate(([True], reached[:-1] < s.top_p * reached[-1]))
    with np.errstate(over="ignore"):
        drawn = np.cumsum(np.exp(wide[keep] / s.temperature))
    place = int(np.searchsorted(drawn, sampler.roll() * drawn[-1], side="right"))
    return int(ids[keep][min(place, len(drawn) - 1)])
