"""`opsin demo`: what it draws, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.cli import demo, main


def ink(word):
    picture = np.asarray(demo.draw(word).convert("L"))
    rows, columns = np.nonzero(picture < 160)
    return rows, columns


@pytest.mark.parametrize("word", ["I", "42", "HELLO", "incomprehensibilities"])
def test_a_word_fills_the_middle_of_its_picture(word):
    rows, columns = ink(word)
    assert rows.min() >= 0.1 * demo.SIDE and rows.max() < 0.9 * demo.SIDE
    assert columns.min() >= 0.05 * demo.SIDE and columns.max() < 0.95 * demo.SIDE
    assert abs((columns.min() + columns.max()) / 2 - demo.SIDE / 2) < 0.05 * demo.SIDE


def test_other_words_make_other_pictures():
    assert len(ink("HELLO")[0]) != len(ink("HELL")[0])


@pytest.mark.parametrize("words", ["", "   ", "x" * 41, "a\x00b"])
def test_what_cannot_be_drawn_is_refused_in_one_line(words, capsys):
    assert main.run(["demo", words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
