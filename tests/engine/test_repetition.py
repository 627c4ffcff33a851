"""Runs of ids followed step by step, against a search through all of them; words that may not be finished."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_definitions import dry

from opsin.engine.repetition import DryWatch, History, dry_penalties
from opsin.engine.sampling import Sampling

RUNS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), max_size=2)


class Runs:
    """Breakers that are runs of ids."""

    def __init__(self, runs):
        self.runs = runs

    def tails(self, id):
        return tuple(run[1:] for run in self.runs if run[0] == id)


@settings(max_examples=200, deadline=None)
@given(
    ids=st.lists(st.integers(0, 3), max_size=40), start=st.integers(0, 30),
    window=st.sampled_from([-1, 1, 2, 5, 9, 30]),
    allowed=st.integers(0, 3), runs=RUNS,
)  # fmt: skip
def test_what_is_taken_for_each_id_is_what_a_search_finds(ids, start, window, allowed, runs):
    s = Sampling(dry_multiplier=0.5, dry_base=2.0, dry_allowed_length=allowed, dry_penalty_last_n=window)
    watch = DryWatch(window, Runs(runs), ids[:start])
    for known in range(min(start, len(ids)), len(ids) + 1):
        repeated = watch.repeated(allowed)
        taken = dry_penalties(repeated, multiplier=0.5, base=2.0, allowed=allowed)
        expected = {id: -x for id, x in dry([(id, 0.0) for id in range(4)], s, ids[:known], runs) if x}
        assert dict(zip(repeated, taken.tolist(), strict=True)) == pytest.approx(expected)
        if known < len(ids):
            watch.append(ids[known])


def test_a_run_however_long_takes_a_finite_penalty():
    watch = DryWatch(-1, Runs([]), [5] * 2000)
    repeated = watch.repeated(2)
    assert repeated == {5: 1999}
    assert np.isfinite(dry_penalties(repeated, multiplier=1.0, base=1.75, allowed=2).astype(np.float32)).all()
    assert np.isfinite(dry_penalties(repeated, multiplier=1e30, base=1e30, allowed=0)).all()
    assert dry_penalties(repeated, multiplier=2.0, base=1.0, allowed=2).tolist() == [2.0]


def test_a_history_grows_and_shows_its_last_ids():
    history = History([1, 2, 3])
    for id in range(1000):
        history.append(id)
    assert history.last(3).tolist() == [997, 998, 999]
    assert history.last(-1).tolist() == [1, 2, 3, *range(1000)]
    assert len(history.last(5000)) == 1003 and len(history.last(0)) == 0
    assert history.ends_with((998, 999)) and not history.ends_with((999, 998))
    assert History([1, 2]).ends_with(()) and not History([1, 2]).ends_with((2,))
