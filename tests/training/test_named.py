"""Names in questions are found, and their labels say what the picture shows."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from training.lists import COLOUR_NAMES, SHAPES
from training.named import UNKNOWN, facts_of, find, groups_of, names_of
from training.scenes import Bar, Scene, Thing
from training.text import decode, render

SCENE = Scene("white", [Thing("circle", "red", 20, 180, 30), *[Thing("star", "blue", 60, 60, 30)] * 3])


def found(question: str, answer: str = "A red circle.") -> list[tuple[str, str, str]]:
    """The word that ends each name in a question, its colour and what it names."""
    ids, learn = render([(question, answer)], 1, 36, lines=True)
    return [(decode([ids[row]]).strip(), colour, name) for row, colour, name in find(ids, learn)]


def labels(colour: str, name: str, scenes: list[Scene]) -> list[int]:
    """The labels of a name."""
    return facts_of(groups_of(colour, name, scenes))


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Is the red circle left of the star?", [("circle", "red", "circle"), ("star", "", "star")]),
        ("How many crosses are there?", [("crosses", "", "cross")]),
        ("Count the blue things.", [("things", "blue", "")]),
        ("What green shape is there?", [("green", "green", "")]),
        ("How many things do you see?", [("things", "", "")]),
        ("What is the leftmost thing?", []),
        ("Which shape has the colour red?", [("red", "red", "")]),
    ],
)
def test_names_are_found_in_questions_and_not_in_answers(question: str, names: list[tuple[str, str, str]]) -> None:
    """With and without a colour, in the plural, a colour alone; answers name a red circle each time."""
    assert found(question) == names


def test_labels_say_how_many_and_where() -> None:
    """Place, colour and shape only of what is there once."""
    assert labels("", "circle", [SCENE]) == [
        1,
        UNKNOWN,
        1,
        11,
        COLOUR_NAMES.index("red"),
        SHAPES.index("circle"),
    ]
    assert labels("blue", "", [SCENE]) == [3, *[UNKNOWN] * 5]
    assert labels("red", "star", [SCENE]) == [0, *[UNKNOWN] * 5]
    assert labels("", "star", [Scene(), SCENE]) == [0, 3, *[UNKNOWN] * 4]


def test_charts_have_no_names() -> None:
    """A red bar is no red thing."""
    talk = render([("Is the red bar taller than the blue bar?", "Yes.")], 1, 36, lines=False)
    assert len(names_of([talk], [[Scene("white", bars=[Bar("a", "red", 3)])]]).at) == 0
    assert names_of([talk, talk], [[Scene("white", bars=[Bar("a", "red", 3)])], [SCENE]]).at[:, 0].tolist() == [1, 1]
