"""Pictures full of words, for the tower: some sixty characters where a question needs one word.

Knows no question.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.crowd import CrowdStream
from training.paint import SIDE, Canvas, load_font
from training.pictures import READING, Picture, choose_number, choose_word
from training.scenes import Scene, Style, choose_background, paint_background, text_shade, wear

PAGES = 0.4  # share of pictures that are pages
SMALLEST, LARGEST = 15, 72  # pixels of a font, small ones more often
LINE = 32  # pixels between lines at least: the decoder's rows are as high
EDGE = 2


def choose_words(rng: random.Random, style: Style) -> Iterator[str]:
    """Words and numbers for a line, all in one of the ways of writing capitals."""
    written = rng.choice((str.lower, str.upper, str.upper, str.capitalize))
    while True:
        yield written(choose_number(rng) if rng.random() < 0.25 else choose_word(rng, style))


def draw_page(rng: random.Random, style: Style) -> Picture:
    """Lines of words, each line in a font, a size and a colour of its own."""
    assert style.assets is not None
    background = choose_background(rng)
    picture, ground = paint_background(rng, background, style.split)
    canvas, down = Canvas(picture, background), rng.randint(EDGE, 20)
    while True:
        font = load_font(rng.choice(style.assets.fonts), int(SMALLEST * (LARGEST / SMALLEST) ** rng.random() ** 1.3))
        colour, rgb = text_shade(rng, style, background, ground)
        words, across, refused = choose_words(rng, style), rng.randint(EDGE, 30), 0
        top, bottom = font.getbbox("Ag")[1::2]
        if down + bottom - top > SIDE - EDGE:
            break
        while refused < 3:
            word = next(words)
            if (wide := font.getlength(word)) > SIDE - EDGE - across:
                refused += 1
                continue
            canvas.add_text(word, (across, int(down - top)), font, colour=colour, rgb=rgb)
            across += int(wide + font.size * rng.uniform(0.35, 1))
        down += max(int(bottom - top) + rng.randint(1, 8), LINE)
    return Picture(wear(rng, canvas.pixels()), Scene(background), canvas.marks)


class PageStream(CrowdStream):
    """Pages, crowds of drawings, single words and charts, and groups so that they are not forgotten."""

    kinds, crowds = READING, 0.65
    fillings, sides = {"shape": 0.2, "drawing": 0.52, "text": 0.23, "": 0.05}, (1, 1, 2, 2, 3, 3, 4)

    def draw(self, rng: random.Random, style: Style) -> Picture:
        """One picture."""
        return draw_page(rng, style) if rng.random() < PAGES else super().draw(rng, style)
