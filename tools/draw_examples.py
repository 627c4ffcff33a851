"""Draws the pictures of examples/, and writes the questions that they are asked.

    python tools/draw_examples.py [FOLDER]

Needs Pillow alone: the letters are those of its default font. The pictures are dedicated to the public domain (CC0).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
SIDE = 384
FINER = 4  # drawn so many times larger, then averaged
Point = tuple[float, float]
COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 138, 28),
    "yellow": (250, 226, 40),
    "green": (24, 160, 66),
    "blue": (32, 96, 210),
    "purple": (126, 42, 164),
    "pink": (252, 132, 178),
    "brown": (122, 76, 38),
    "black": (12, 12, 12),
    "white": (250, 250, 250),
    "grey": (136, 136, 138),
}


def star() -> list[Point]:
    """Five points."""
    radii = [1.0 if corner % 2 == 0 else 0.42 for corner in range(10)]
    return [(r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]


def heart() -> list[Point]:
    """The curve x = sin^3, y = four cosines (https://mathworld.wolfram.com/HeartCurve.html)."""
    turns = [2 * math.pi * step / 80 for step in range(80)]
    waves = ((13, 1), (-5, 2), (-2, 3), (-1, 4))
    return [(math.sin(t) ** 3, -sum(size * math.cos(times * t) for size, times in waves) / 16.5) for t in turns]


OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)],
    "diamond": [(0, -1), (0.75, 0), (0, 1), (-0.75, 0)],
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
    "star": star(),
    "heart": heart(),
}


class Sheet:
    """A square to draw on. Places and sizes are in hundredths of its side."""

    def __init__(self, ground: str = "white") -> None:
        self.unit = SIDE * FINER / 100
        self.ground = ground
        self.image = Image.new("RGB", (SIDE * FINER, SIDE * FINER), COLOURS[ground])
        self.pen = ImageDraw.Draw(self.image)

    def shape(self, name: str, colour: str, x: float, y: float, size: float = 20) -> Sheet:
        """A shape around a middle."""
        half, fill = size / 2, COLOURS[colour]
        if name in OUTLINES:
            outline = [((x + half * a) * self.unit, (y + half * b) * self.unit) for a, b in OUTLINES[name]]
            self.pen.polygon(outline, fill)
            return self
        self._disc(x, y, half, fill)
        if name == "ring":
            self._disc(x, y, half * 0.52, COLOURS[self.ground])
        if name == "moon":
            self._disc(x + half * 0.5, y, half * 0.84, COLOURS[self.ground])
        return self

    def _disc(self, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
        box = [(middle + side * radius) * self.unit for side in (-1, 1) for middle in (x, y)]
        self.pen.ellipse(tuple(box), fill)

    def text(self, words: str, colour: str, x: float, y: float, size: float) -> Sheet:
        """Letters around a middle."""
        font = ImageFont.load_default(size * self.unit)
        self.pen.text((x * self.unit, y * self.unit), words, COLOURS[colour], font, anchor="mm")
        return self

    def chart(self, bars: list[tuple[str, str, float]]) -> Sheet:
        """Bars with a letter below each: letter, colour, height."""
        base, step = 84.0, 84 / len(bars)
        for number, (letter, colour, height) in enumerate(bars):
            left = 10 + step * (number + 0.15)
            box = (left, base - height, left + step * 0.7, base)
            self.pen.rectangle(tuple(side * self.unit for side in box), COLOURS[colour])
            self.text(letter, "black", left + step * 0.35, base + 7, 9)
        for line in ((9, 6, 9, base), (9, base, 96, base)):
            self.pen.line(tuple(side * self.unit for side in line), (60, 60, 60), FINER)
        return self


@dataclass(frozen=True)
class Example:
    """A picture and what it is asked, with the answers."""

    file: str
    draw: Callable[[], Sheet]
    questions: list[tuple[str, str]]


def scene() -> Sheet:
    """Four red circles and three other things."""
    sheet = Sheet().shape("circle", "red", 20, 22, 22).shape("circle", "red", 55, 18, 18)
    sheet.shape("circle", "red", 82, 45, 22).shape("circle", "red", 30, 78, 20)
    return (
        sheet.shape("square", "blue", 44, 50, 22).shape("triangle", "green", 72, 80, 22).shape("star", "yellow", 14, 52)
    )


def field(name: str, colour: str, count: int) -> Sheet:
    """The same thing again and again, in rows of three."""
    sheet = Sheet()
    for number in range(count):
        sheet.shape(name, colour, 20 + 30 * (number % 3), 20 + 30 * (number // 3), 21)
    return sheet


def night() -> Sheet:
    """A moon on the left, a star on the right."""
    return Sheet("black").shape("moon", "white", 25, 50, 40).shape("star", "yellow", 75, 50, 30)


def two() -> Sheet:
    """An arrow below, a circle above."""
    return Sheet().shape("arrow", "orange", 30, 80, 30).shape("circle", "grey", 75, 20, 26)


def chart() -> Sheet:
    """Four bars."""
    return Sheet().chart([("A", "blue", 35), ("B", "red", 72), ("C", "green", 20), ("D", "orange", 52)])


COUNT, GROUND, WORD = "How many {} are there?", "What colour is the background?", "What does it say?"
EXAMPLES = [
    Example(
        "scene.png",
        scene,
        [
            (COUNT.format("red circles"), "Four."),
            ("What colour is the square?", "Blue."),
            ("Is there a purple heart?", "No."),
        ],
    ),
    Example(
        "heart.png",
        lambda: Sheet().shape("heart", "pink", 80, 18, 26),
        [("Where is the heart?", "Top right."), ("What colour is the heart?", "Pink.")],
    ),
    Example("six.png", lambda: field("triangle", "green", 6), [(COUNT.format("triangles"), "Six.")]),
    Example("nine.png", lambda: field("diamond", "purple", 9), [("How many diamonds do you see?", "Nine.")]),
    Example("night.webp", night, [("Is the moon left of the star?", "Yes."), (GROUND, "Black.")]),
    Example(
        "one.jpg",
        lambda: Sheet("yellow").shape("square", "blue", 50, 50, 60),
        [("What do you see?", "A blue square."), (GROUND, "Yellow.")],
    ),
    Example(
        "arrow.png",
        two,
        [("What shape is the orange thing?", "An arrow."), ("What is the topmost thing?", "A grey circle.")],
    ),
    Example(
        "ring.png",
        lambda: Sheet("green").shape("ring", "white", 50, 50, 52),
        [("What shape is the white thing?", "A ring.")],
    ),
    Example(
        "hello.png",
        lambda: Sheet().text("HELLO", "blue", 50, 50, 26),
        [(WORD, '"hello"'), ("What colour is the text?", "Blue.")],
    ),
    Example(
        "tea.png",
        lambda: Sheet("pink").text("tea", "black", 50, 46, 40),
        [("What word is this?", '"tea"'), ("How many letters does the word have?", "Three.")],
    ),
    Example("number.png", lambda: Sheet().text("42", "red", 50, 50, 50), [("What number is this?", "42.")]),
    Example(
        "chart.png",
        chart,
        [
            ("Which bar is the tallest?", '"b"'),
            ("What colour is the shortest bar?", "Green."),
            (COUNT.format("bars"), "Four."),
        ],
    ),
]


def main() -> None:
    """Write all of them, and questions.json."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "examples"
    folder.mkdir(exist_ok=True)
    asked = []
    for example in EXAMPLES:
        example.draw().image.reduce(FINER).save(folder / example.file, quality=92)
        asked += [{"picture": example.file, "question": asks, "answer": says} for asks, says in example.questions]
    lines = ",\n".join("  " + json.dumps(each) for each in asked)
    (folder / "questions.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
