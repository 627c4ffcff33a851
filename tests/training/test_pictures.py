"""Pictures show what their facts say, and their questions have balanced, true answers."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("torch")

from training import questions as q
from training.conversations import converse
from training.lists import COLOUR_NAMES, COLOURS, NUMBERS, SHAPES, plural
from training.paint import FIRST_SHAPE, PATCH, share_middle
from training.pictures import draw_picture
from training.scenes import SIZES, Scene, Style, Thing, choose_group, paint_things

STYLE = Style("train", None)


def test_same_seed_draws_the_same_picture() -> None:
    """A sample is its number."""
    first, second = (draw_picture(random.Random("a"), STYLE, "things") for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels) and first.scene == second.scene


def test_groups_are_of_every_number_equally_often() -> None:
    """One to nine of a shape come first; what is beside them has another shape."""
    rng, sizes = random.Random(2), Counter[int]()
    for _ in range(900):
        kinds = choose_group(rng, "white")
        names = [name for name, _ in kinds]
        size = next((i for i, name in enumerate(names) if name != names[0]), len(names))
        assert names[0] not in names[size:] and len(names) <= 12
        sizes[size] += 1
    assert sorted(sizes) == list(range(1, 10)) and min(sizes.values()) > 70 and max(sizes.values()) < 135


def test_a_middle_is_shared_among_its_neighbours_and_stays_one() -> None:
    """In the middle of a patch it is that patch's alone, on a corner four have a quarter each."""
    assert share_middle(24, 40)[2, 1] == 1
    assert np.allclose(share_middle(32, 32)[1:3, 1:3], 0.25)
    assert all(np.isclose(share_middle(x, 191 - x).sum(), 1) for x in range(192))


def test_labels_lie_where_things_are() -> None:
    """The patch of a thing's middle names its shape and colour."""
    for seed in range(30):
        scene, canvas = paint_things(random.Random(seed), STYLE, "white", [("circle", "red"), ("square", "blue")])
        for thing in scene.things:
            at = thing.y // PATCH, thing.x // PATCH
            assert canvas.marks.what[at] == FIRST_SHAPE + SHAPES.index(thing.name)
            assert canvas.marks.colour[at] == COLOUR_NAMES.index(thing.colour) and canvas.marks.centre[at] >= 0.25


def test_few_things_are_one_to_three_that_stand_out() -> None:
    """The scenes that a young decoder learns from."""
    rng = random.Random(5)
    scenes = [draw_picture(rng, STYLE, "few").scene for _ in range(60)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert all(thing.colour != scene.background for scene in scenes for thing in scene.things)


def test_tests_use_shades_and_sizes_that_training_never_does() -> None:
    """What is held out is held out."""
    assert not set(SIZES["train"]) & set(SIZES["test"])
    for shades in COLOURS.values():
        assert not set(shades["train"]) & set(shades["test"])


def test_counts_are_true() -> None:
    """The number in the answer is the number in the scene."""
    rng = random.Random(1)
    for _ in range(200):
        scene = draw_picture(rng, STYLE, "things").scene
        turn = q.ask_count(scene, rng)
        if turn is None or not any(plural(s) in turn.question for s in SHAPES):
            continue
        found = [
            t
            for t in scene.things
            if plural(t.name) in turn.question
            and (t.colour in turn.question or not any(c in turn.question for c in COLOUR_NAMES))
        ]
        assert turn.answer == f"{NUMBERS[len(found)].capitalize()}."


def test_yes_comes_as_often_as_no() -> None:
    """Neither answer pays without looking."""
    rng, answers = random.Random(2), Counter[str]()
    while answers.total() < 1500:
        for turn in converse(rng, STYLE).turns:
            if turn.kind in ("exists", "left", "right", "above", "below", "taller"):
                answers[turn.answer] += 1
    assert 0.42 < answers["Yes."] / answers.total() < 0.58


def test_what_is_missing_is_denied() -> None:
    """A false premise gets no colour."""
    scene, rng = Scene("white", [Thing("circle", "red", 50, 50, 30)]), random.Random(3)
    turns = [turn for _ in range(300) if (turn := q.ask_colour(scene, rng)) is not None]
    assert {turn.answer for turn in turns if "circle" in turn.question} == {"Red."}
    assert all(turn.answer.startswith("There is no") for turn in turns if turn.absent)
    assert any(turn.absent for turn in turns)
