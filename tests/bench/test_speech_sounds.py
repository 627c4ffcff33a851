"""Recordings with known words, and how words are counted that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from speech_sounds import RATE, cuts, errors, joined, normal


@pytest.mark.parametrize(
    ("known", "written", "wrong"),
    [
        ("a b c d", "a b c d", 0), ("a b c d", "a x c", 2), ("", "a", 1), ("a b", "", 2), ("a b", "c a b d", 2),
        ("a b c d e f", "b c d e f a", 2),
    ],
)  # fmt: skip
def test_words_are_changed_left_out_and_added(known, written, wrong):
    assert errors(known.split(), written.split()) == wrong


def test_words_are_compared_without_signs_and_short_forms():
    assert normal("And Mr. John's ill-disposed.") == ("and", "mister", "john's", "ill", "disposed")


def test_a_recording_is_as_long_as_asked_and_the_same_again():
    made, again = (joined(cuts(None), 20, disturbed=True, seed=3) for _ in range(2))
    assert 20 <= made.seconds < 20 + 7.1 + 4
    assert np.array_equal(made.samples, again.samples)
    assert len(made.words) % len(cuts(None)[0].words) == 0
    assert made.samples.dtype == np.float32
    assert len(made.samples) / RATE == made.seconds
