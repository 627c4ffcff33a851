"""Draws one picture of any kind: things, drawings, a word, a number, a chart.

Knows what kinds there are and how often each comes; knows no question.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from training.paint import Marks
from training.scenes import (
    Scene,
    Style,
    choose_background,
    choose_few,
    choose_group,
    choose_kinds,
    paint_chart,
    paint_text,
    paint_things,
    wear,
)

KINDS = {"things": 0.42, "drawings": 0.18, "word": 0.2, "number": 0.08, "chart": 0.12}
THINGS_FIRST = {"few": 0.45, "things": 0.42, "drawings": 0.03, "word": 0.03, "number": 0.03, "chart": 0.04}
MOSTLY_THINGS = {"few": 0.15, "things": 0.63, "drawings": 0.07, "word": 0.03, "number": 0.06, "chart": 0.06}
GROUPS = {"group": 0.6, "few": 0.08, "things": 0.15, "drawings": 0.05, "word": 0.03, "number": 0.04, "chart": 0.05}
READING = {"group": 0.35, "things": 0.15, "drawings": 0.15, "word": 0.15, "number": 0.1, "chart": 0.1}
EVERYTHING = {"group": 0.45, "few": 0.02, "things": 0.1, "drawings": 0.13, "word": 0.2, "number": 0.04, "chart": 0.06}
CONSONANTS, VOWELS = "bcdfghjklmnprstvwxz", "aeiouy"


@dataclass
class Picture:
    """Pixels, facts, and what is where."""

    pixels: np.ndarray  # uint8 [192, 192, 3]
    scene: Scene
    marks: Marks


def choose_kind(rng: random.Random, style: Style, kinds: dict[str, float]) -> str:
    """A kind of picture; without assets only things and charts."""
    names = list(kinds) if style.assets else ["things", "chart"]
    return rng.choices(names, [kinds[name] for name in names])[0]


def choose_word(rng: random.Random, style: Style) -> str:
    """A word of 2 to 8 letters, short ones as often as long ones; in training also letters at random."""
    assert style.assets is not None
    length = rng.randint(2, 8)
    if style.split == "train" and rng.random() < 0.45:
        if rng.random() < 0.5:
            return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
        return "".join(rng.choice(VOWELS if i % 2 else CONSONANTS) for i in range(length))
    while True:
        word = rng.choice(style.assets.words)
        if len(word) == length or (length == 2 and len(word) <= 4):
            return word


def choose_number(rng: random.Random) -> str:
    """A number of one or two digits, sometimes three or four."""
    digits = rng.choice((1, 1, 2, 2, 2, 3, 4))
    return str(rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1))


def draw_picture(rng: random.Random, style: Style, kind: str) -> Picture:
    """A picture of the kind."""
    if kind == "word":
        scene, canvas = paint_text(rng, style, choose_word(rng, style))
    elif kind == "number":
        scene, canvas = paint_text(rng, style, choose_number(rng))
    elif kind == "chart":
        scene, canvas = paint_chart(rng, style, rng.randint(2, 6))
    else:
        background = choose_background(rng)
        kinds = choose_few(rng, background) if kind == "few" else choose_group(rng, background) if kind == "group" \
            else choose_kinds(rng, background, drawings=kind == "drawings")
        scene, canvas = paint_things(rng, style, background, kinds)
    return Picture(wear(rng, canvas.pixels()), scene, canvas.marks)
