"""The measure itself: a wrong one would let every model pass."""

from __future__ import annotations

import numpy as np
import pytest
from divergence import divergence


def test_a_model_does_not_differ_from_itself():
    logits = np.random.default_rng(0).normal(size=(5, 100)).astype(np.float32)
    assert np.array_equal(divergence(logits, logits), np.zeros(5))


def test_adding_a_constant_to_a_row_changes_nothing():
    logits = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    assert np.abs(divergence(logits, logits + np.float32(4))).max() < 1e-6


def test_two_outcomes_give_the_value_worked_out_by_hand():
    half = np.log(np.array([[0.5, 0.5]], np.float32))
    skewed = np.log(np.array([[0.25, 0.75]], np.float32))
    by_hand = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert divergence(half, skewed)[0] == pytest.approx(by_hand, abs=1e-6)


def test_it_is_not_symmetric():
    a, b = np.random.default_rng(2).normal(size=(2, 1, 20)).astype(np.float32) * 3
    assert divergence(a, b)[0] != pytest.approx(divergence(b, a)[0], rel=0.01)


def test_logits_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        divergence(np.zeros((2, 8), np.float32), np.zeros((3, 8), np.float32))
