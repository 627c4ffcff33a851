"""What is counted is counted rightly."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.evaluate import distance, measure, spread
from training.testset import Item, blanks

NOTHING: list[np.ndarray] = []


def test_edits_are_counted() -> None:
    """Changed, lost and added letters."""
    assert [distance(a, b) for a, b in (("house", "house"), ("hose", "house"), ("", "abc"), ("cat", "dog"))] == [
        0,
        1,
        3,
        3,
    ]


def test_a_pair_counts_only_when_both_are_right() -> None:
    """One right answer of two does not tell the pictures apart."""
    items = [Item("pair", NOTHING, "?", answer, pair=number) for number in (0, 1) for answer in ("Red.", "Blue.")]
    table = measure(items, ["Red.", "Blue.", "Red.", "Red."])
    assert table["pair"]["right"] == 0.75 and table["pairs answered apart"]["right"] == 0.5


def test_false_denials_are_counted_where_the_thing_is_there() -> None:
    """ "There is no" and "No" about what is there; a right denial does not count."""
    items = [
        Item("colour", NOTHING, "?", "Red."),
        Item("exists", NOTHING, "?", "Yes."),
        Item("exists", NOTHING, "?", "No."),
        Item("place", NOTHING, "?", "Top."),
    ]
    table = measure(items, ["There is no circle.", "Yes.", "No.", "Top."])
    assert table["falsely denied"]["right"] == pytest.approx(1 / 3) and table["falsely denied"]["questions"] == 3


def test_spread_of_a_certain_share_is_nothing() -> None:
    """All right leaves no doubt; half right leaves some."""
    assert spread([True] * 50) == 0 and spread([True, False] * 50) > 0.05


def test_blank_pictures_show_nothing() -> None:
    """White or noise under the same questions."""
    found = blanks(
        [
            Item("colour", NOTHING, "?", "Red."),
            Item("shape", NOTHING, "?", "A star."),
            Item("more", NOTHING, "?", "The first."),
        ]
    )
    assert [item.category for item in found] == ["blank: colour", "blank: shape"]
    assert found[0].pictures[0].min() == 255 and found[1].pictures[0].std() > 50
