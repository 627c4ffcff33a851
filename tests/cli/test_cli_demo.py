"""`opsin demo`: what it draws is what it says, and what cannot be drawn or saved is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from opsin.cli import demo, main


@pytest.mark.parametrize("seed", range(12))
def test_every_thing_stands_in_its_cell_in_its_colour(seed):
    chance = random.Random(seed)
    things = demo.scene(chance)
    pixels = np.asarray(demo.draw(things, chance))
    for thing in things:
        rows, columns = np.nonzero((pixels == demo.COLOURS[thing.colour]).all(-1))
        middle = 3 * rows.mean() / demo.SIDE, 3 * columns.mean() / demo.SIDE
        assert (int(middle[0]), int(middle[1])) == divmod(thing.cell, 3)


def test_shapes_fill_what_they_should_of_their_square():
    share = {"square": 0.72, "triangle": 0.42, "diamond": 0.375, "circle": 0.785}
    for shape, expected in share.items():
        pixels = np.asarray(demo.draw([demo.Thing(shape, "red", 4)], random.Random(3)))
        rows, columns = np.nonzero((pixels == demo.COLOURS["red"]).all(-1))
        bounds = {"square": 0.85**2, "triangle": 0.95 * 0.875, "diamond": 0.75, "circle": 1.0}[shape]
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert len(rows) / box * bounds == pytest.approx(expected, abs=0.03)


def test_questions_have_true_answers():
    things = [demo.Thing("circle", "red", 0), demo.Thing("square", "blue", 4), demo.Thing("diamond", "green", 5)]
    for seed in range(8):
        asked = dict(demo.questions(things, random.Random(seed)))
        assert asked["What colour is the circle?"] == "Red."
        assert asked["What shape is the blue thing?"] == "A square."
        assert asked["Where is the diamond?"] == "Right."
        assert asked.get("Is there a circle?", "Yes.") == "Yes." and asked.get("Is there a triangle?", "No.") == "No."
    assert [t.place for t in things] == ["top left", "centre", "right"]


def test_a_seed_repeats_the_picture_and_the_answers_are_told(tmp_path, capsys):
    said = []
    for number in range(2):
        assert main.run(["demo", "--seed", "7", "--save", str(tmp_path / f"{number}.png")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].count("?") == 5
    assert Image.open(tmp_path / "0.png").tobytes() == Image.open(tmp_path / "1.png").tobytes()


@pytest.mark.parametrize("word", ["HELLO", "ox", "42", "overlaps"])
def test_words_are_drawn_whole_in_their_colour_and_asked_about(word):
    places = set()
    for seed in range(12):
        page = demo.written(word, random.Random(seed))
        colour = page.about.split()[-1]
        pixels = np.asarray(page.picture)
        assert (pixels[[0, -1]] == demo.GROUND).all() and (pixels[:, [0, -1]] == demo.GROUND).all()
        rows, columns = np.nonzero((pixels == demo.COLOURS[colour]).all(-1))
        assert len(rows) > 300
        places.add((rows.min(), columns.min()))
        assert [answer for _, answer in page.questions] == [
            "42." if word == "42" else f'"{word.lower()}"',
            f"{colour.capitalize()}.",
        ]
    assert len(places) > 6


def test_each_word_has_a_picture_of_its_own(tmp_path, capsys):
    assert main.run(["demo", "HELLO 42", "--seed", "3", "--save", str(tmp_path / "page.png")]) == 0
    said = capsys.readouterr().out
    assert said.count("Drawn: HELLO") == said.count("Drawn: 42") == 1 and said.count("?") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page-1.png", "page-2.png"]


@pytest.mark.parametrize("word", ["extraordinary", "don't", "a1", "你好"])
def test_words_that_the_model_was_never_taught_are_refused(word, capsys):
    assert main.run(["demo", f"hello {word}"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and repr(word) in said


@pytest.mark.parametrize("name", ["missing/folder/picture.png", "picture.unknown"])
def test_a_picture_that_cannot_be_kept_is_refused_in_one_line(name, tmp_path, capsys):
    assert main.run(["demo", "--save", str(tmp_path / name)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
