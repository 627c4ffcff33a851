"""Pictures full of things, for the tower alone: several times as many labels for the same work.

No question is asked about them, so things may be many. Knows no question.
"""

from __future__ import annotations

import random

from training.lists import CHARACTERS, COLOUR_NAMES, EMOJI_NAMES, SHAPES
from training.paint import SIDE, Canvas, Colour, load_font
from training.pictures import GROUPS, Picture
from training.scenes import (
    SIZES,
    Scene,
    Style,
    Thing,
    choose_background,
    paint_background,
    paint_thing,
    text_shade,
    wear,
)
from training.stream import PictureStream

CROWDS = 0.65  # share of pictures that are crowds; the others are those that questions are asked about
SIDES = (2, 3, 3, 4, 4, 5)  # cells along a side
FILLINGS = {"shape": 0.7, "drawing": 0.08, "text": 0.15, "": 0.07}
LARGE = [*SIZES["train"], *range(60, 94), *range(94, 151, 2)]


def draw_crowd(rng: random.Random, style: Style, fillings: dict[str, float] = FILLINGS,
               sides: tuple[int, ...] = SIDES) -> Picture:
    """A picture whose every cell holds a shape, a drawing, a few characters or nothing."""
    background = choose_background(rng)
    picture, ground = paint_background(rng, background, style.split)
    canvas, side = Canvas(picture, background), rng.choice(sides)
    cell, outlined = (SIDE - 4) // side, rng.random() < 0.15
    names = list(fillings) if style.assets else ["shape", ""]
    for number in range(side * side):
        corner = 2 + cell * (number % side), 2 + cell * (number // side)
        filling = rng.choices(names, [fillings[name] for name in names])[0]
        if filling == "text":
            write_characters(rng, style, canvas, ground, background, corner, cell)
        elif filling:
            size = rng.choice([s for s in LARGE if 0.55 * cell <= s <= 0.98 * cell])
            x, y = (at + size // 2 + rng.randint(0, cell - size) for at in corner)
            name = rng.choice(SHAPES if filling == "shape" else EMOJI_NAMES)
            colour = rng.choice([c for c in COLOUR_NAMES if c != background]) if filling == "shape" else ""
            paint_thing(rng, style, canvas, ground, Thing(name, colour, x, y, size), outlined=outlined)
    return Picture(wear(rng, canvas.pixels()), Scene(background), canvas.marks)


def write_characters(rng: random.Random, style: Style, canvas: Canvas, ground: Colour, background: str,
                     corner: tuple[int, int], cell: int) -> None:
    """One to four letters or digits, as large as the cell allows or smaller."""
    assert style.assets is not None
    colour, rgb = text_shade(rng, style, background, ground)
    pool = CHARACTERS[26:] if rng.random() < 0.3 else CHARACTERS[:26]
    text = "".join(rng.choice(pool) for _ in range(rng.randint(1, 2 if cell < 45 else 4)))
    text, path = rng.choice((text, text.upper())), rng.choice(style.assets.fonts)
    most = cell / max(load_font(path, 40).getlength(text) / 40, 0.9)
    font = load_font(path, int(most * rng.uniform(0.65, 1)))
    left, top, right, bottom = font.getbbox(text)
    x = corner[0] + rng.randint(0, max(0, int(cell - right)))
    y = corner[1] - int(top) + rng.randint(0, max(0, int(cell - (bottom - top))))
    canvas.add_text(text, (x, y), font, colour=colour, rgb=rgb)


class CrowdStream(PictureStream):
    """Mostly crowds, the others as in conversations."""

    crowds, fillings, sides = CROWDS, FILLINGS, SIDES

    def draw(self, rng: random.Random, style: Style) -> Picture:
        """One picture."""
        if rng.random() < self.crowds:
            return draw_crowd(rng, style, self.fillings, self.sides)
        return super().draw(rng, style)


class GroupStream(CrowdStream):
    """Mostly groups of a shape, as they are counted."""

    kinds, crowds = GROUPS, 0.3
