"""Paints things on a 192-pixel canvas and keeps, for every patch, what is there.

Knows shapes, glyphs and drawings as masks; knows no questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.lists import CHARACTERS, COLOUR_NAMES, EMOJI_NAMES, SHAPES

SIDE = 192
PATCH = 16
GRID = SIDE // PATCH
NARROW = PATCH // 2  # pixels across that letters are labelled by
CELLS = GRID // 2  # rows of the decoder along a side
LONGEST = 8  # characters of a word whose order is labelled
FIRST_SHAPE = 1
FIRST_DRAWING = FIRST_SHAPE + len(SHAPES)
FIRST_CHARACTER = FIRST_DRAWING + len(EMOJI_NAMES)
BAR = FIRST_CHARACTER + len(CHARACTERS)
WHATS = BAR + 1
OVERSAMPLE = 4
Colour = tuple[int, int, int]


def polygon_points(shape: str) -> list[tuple[float, float]]:
    """The outline of a shape in the square from -1 to 1."""
    turn = 2 * math.pi
    match shape:
        case "square":
            return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
        case "triangle":
            return [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)]
        case "diamond":
            return [(0, -1), (0.75, 0), (0, 1), (-0.75, 0)]
        case "star":
            radii = [1.0 if i % 2 == 0 else 0.42 for i in range(10)]
            return [(r * math.sin(turn * i / 10), -r * math.cos(turn * i / 10)) for i, r in enumerate(radii)]
        case "cross":
            a, b = 0.32, 0.95
            return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a),
                    (-a, -a)]
        case "arrow":
            return [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)]
        case "heart":
            steps = [turn * i / 40 for i in range(40)]
            return [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                                         - math.cos(4 * t)) / 16.5) for t in steps]
    raise ValueError(f"no outline for shape {shape!r}")


@lru_cache(maxsize=20000)
def shape_mask(shape: str, size: int, angle: int) -> Image.Image:
    """The coverage of a shape, `size` pixels wide, turned by `angle` degrees."""
    big = size * OVERSAMPLE
    mask = Image.new("L", (big, big), 0)
    draw = ImageDraw.Draw(mask)
    if shape in ("circle", "ring", "moon"):
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
        if shape == "ring":
            inset = big * 0.24
            draw.ellipse((inset, inset, big - 1 - inset, big - 1 - inset), fill=0)
        if shape == "moon":
            shift_x, shift_y = math.cos(math.radians(angle)) * 0.38 * big, math.sin(math.radians(angle)) * 0.38 * big
            draw.ellipse((big * 0.08 + shift_x, big * 0.08 + shift_y, big * 0.92 + shift_x, big * 0.92 + shift_y),
                         fill=0)
    else:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        half = big / 2
        draw.polygon([(half + half * (x * cos - y * sin), half + half * (x * sin + y * cos))
                      for x, y in polygon_points(shape)], fill=255)
    return mask.reduce(OVERSAMPLE)


@lru_cache(maxsize=12000)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=200_000)
def character_box(font: ImageFont.FreeTypeFont, character: str) -> tuple[float, float, float, float]:
    """Where a character's ink lies."""
    return font.getbbox(character)


@lru_cache(maxsize=900)
def load_drawing(path: str) -> Image.Image:
    """A drawing with its transparency."""
    return Image.open(path).convert("RGBA")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[float, float]:
        """The centre of the rectangle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True)
class Tint:
    """How a drawing differs from its file: the strength of each colour, and whether left and right change places."""

    red: float
    green: float
    blue: float
    mirrored: bool = False

    def of(self, drawing: Image.Image) -> Image.Image:
        """The drawing, changed."""
        strengths = (self.red, self.green, self.blue, 1.0)
        changed = drawing.point([min(255, round(value * by)) for by in strengths for value in range(256)])
        return changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else changed


@dataclass
class Marks:
    """What is where in a picture."""

    what: np.ndarray  # int16 [12, 12]: 0 nothing, then shapes, drawings, characters, bar
    colour: np.ndarray  # int8 [12, 12]: of the thing, or of the background; -1 where it has no name
    centre: np.ndarray  # float32 [12, 12]: things' middles, each shared among the patches next to it
    letter: np.ndarray  # int8 [12, 24]: the character in each half of a patch, from 1; 0 for none
    spelt: np.ndarray  # int8 [8, 6, 6]: the first, second ... character of a word that has its middle here; -1 for none
    share: np.ndarray  # float32 [8, 6, 6]: how much of that character's middle lies here


class Canvas:
    """A picture in the making and what is where in it."""

    def __init__(self, background: Image.Image, colour: str) -> None:
        """Start with a background; `colour` is its name, or empty where it has none."""
        self.picture = background
        base = COLOUR_NAMES.index(colour) if colour else -1
        self.marks = Marks(np.zeros((GRID, GRID), np.int16), np.full((GRID, GRID), base, np.int8),
                           np.zeros((GRID, GRID), np.float32), np.zeros((GRID, 2 * GRID), np.int8),
                           np.full((LONGEST, CELLS, CELLS), -1, np.int8),
                           np.zeros((LONGEST, CELLS, CELLS), np.float32))
        self._cover = np.full((GRID, GRID), 0.12, np.float32)
        self._inked = np.full((GRID, 2 * GRID), 0.12, np.float32)

    def _mark(self, cover: np.ndarray, what: int, colour: str, middle: tuple[float, float]) -> None:
        """Write a thing's labels where it covers more of a patch than what is there already."""
        row = min(max(int(middle[1] // PATCH), 0), GRID - 1)
        column = min(max(int(middle[0] // PATCH), 0), GRID - 1)
        marks = self.marks
        marks.centre = np.minimum(marks.centre + share_middle(*middle), 1)
        cover[row, column] += 0.25
        wins = cover > self._cover
        marks.what[wins] = what
        marks.colour[wins] = COLOUR_NAMES.index(colour) if colour else -1
        self._cover[wins] = cover[wins]

    def _spell(self, character: int, index: int, box: Box, middle: tuple[float, float]) -> None:
        """Label a word's character at `index`: the narrow columns that it fills and the row that holds its middle."""
        top, bottom = max(int(box.top // PATCH), 0), min(math.ceil(box.bottom / PATCH), GRID)
        left, right = max(int(box.left // NARROW), 0), min(math.ceil(box.right / NARROW), 2 * GRID)
        for row in range(top, bottom):
            high = (min(box.bottom, (row + 1) * PATCH) - max(box.top, row * PATCH)) / PATCH
            for column in range(left, right):
                wide = (min(box.right, (column + 1) * NARROW) - max(box.left, column * NARROW)) / NARROW
                if high * wide > self._inked[row, column]:
                    self._inked[row, column] = high * wide
                    self.marks.letter[row, column] = character + 1
        if index < LONGEST:
            share, here = share_cells(*middle), self.marks.share[index]
            self.marks.spelt[index][share > here] = character
            np.maximum(here, share, out=here)

    def paste_mask(self, mask: Image.Image, at: tuple[int, int], colour: Colour) -> np.ndarray:
        """Paint a mask with a colour; returns the share of every patch that it covers."""
        self.picture.paste(colour, (at[0], at[1], at[0] + mask.width, at[1] + mask.height), mask)
        full = np.zeros((SIDE, SIDE), np.uint8)
        left, top = max(at[0], 0), max(at[1], 0)
        right, bottom = min(at[0] + mask.width, SIDE), min(at[1] + mask.height, SIDE)
        full[top:bottom, left:right] = np.asarray(mask)[top - at[1]:bottom - at[1], left - at[0]:right - at[0]]
        return full.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3), dtype=np.float32) / 255

    def add_shape(self, shape: str, middle: tuple[int, int], size: int, *, angle: int, colour: str, rgb: Colour,
                  outline: Colour | None = None) -> None:
        """Paint a shape, with a thin outline if one is given."""
        at = (middle[0] - size // 2, middle[1] - size // 2)
        if outline is not None:
            self.paste_mask(shape_mask(shape, size + 4, angle), (at[0] - 2, at[1] - 2), outline)
        cover = self.paste_mask(shape_mask(shape, size, angle), at, rgb)
        self._mark(cover, FIRST_SHAPE + SHAPES.index(shape), colour, middle)

    def add_drawing(self, name: str, path: str, middle: tuple[int, int], size: int, *, angle: int = 0,
                    vary: Tint | None = None) -> None:
        """Paint a drawing."""
        drawing = load_drawing(path) if vary is None else vary.of(load_drawing(path))
        if angle:
            drawing = drawing.rotate(angle, Image.Resampling.BILINEAR)
        drawing = drawing.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
        at = (middle[0] - size // 2, middle[1] - size // 2)
        self.picture.paste(drawing, at, drawing)
        box = Box(at[0], at[1], at[0] + size, at[1] + size)
        self._mark(box_cover(box) * 0.8, FIRST_DRAWING + EMOJI_NAMES.index(name), "", middle)

    def add_bar(self, box: Box, colour: str, rgb: Colour) -> None:
        """Paint a bar of a chart."""
        ImageDraw.Draw(self.picture).rectangle((box.left, box.top, box.right, box.bottom), fill=rgb)
        self._mark(box_cover(box), BAR, colour, box.middle)

    def add_text(self, text: str, at: tuple[int, int], font: ImageFont.FreeTypeFont, *, colour: str,
                 rgb: Colour) -> list[tuple[float, float]]:
        """Write a word with its upper left corner at `at` and label every character; returns their middles."""
        ImageDraw.Draw(self.picture).text(at, text, font=font, fill=rgb)
        _, line_top, _, line_bottom = font.getbbox(text)
        line, middles = at[1] + (line_top + line_bottom) / 2, []
        for index, character in enumerate(text):
            if character.lower() not in CHARACTERS:
                continue
            start = at[0] + font.getlength(text[:index])
            left, top, right, bottom = character_box(font, character)
            box = Box(start + left, at[1] + top, start + right, at[1] + bottom)
            number = CHARACTERS.index(character.lower())
            self._mark(box_cover(box), FIRST_CHARACTER + number, colour, box.middle)
            middles.append((box.middle[0], line))
            self._spell(number, index, box, middles[-1])
        return middles

    def pixels(self) -> np.ndarray:
        """The picture as bytes [192, 192, 3]."""
        return np.asarray(self.picture, np.uint8)


def box_cover(box: Box) -> np.ndarray:
    """The share of every patch that a rectangle covers."""
    edges = np.arange(GRID, dtype=np.float32) * PATCH
    x = np.clip(np.minimum(edges + PATCH, box.right) - np.maximum(edges, box.left), 0, None) / PATCH
    y = np.clip(np.minimum(edges + PATCH, box.bottom) - np.maximum(edges, box.top), 0, None) / PATCH
    return np.outer(y, x)


def share_middle(x: float, y: float) -> np.ndarray:
    """A middle shared among the four nearest patches, one in all: where exactly it lies is seldom seen to a pixel."""
    shared = np.zeros((GRID, GRID), np.float32)
    for row, high in near(y):
        for column, wide in near(x):
            shared[row, column] = high * wide
    return shared


def near(at: float) -> list[tuple[int, float]]:
    """The one or two patches along an axis whose middles are nearest, and the share of each."""
    place = min(max(at / PATCH - 0.5, 0.0), GRID - 1.0)
    first = int(place)
    return [(first, 1 - place + first), (first + 1, place - first)] if place > first else [(first, 1.0)]


def share_cells(x: float, y: float) -> np.ndarray:
    """A middle shared among the decoder's rows: [6, 6]."""
    shared = np.zeros((CELLS, CELLS), np.float32)
    for row, high in near(y):
        for column, wide in near(x):
            shared[row // 2, column // 2] += high * wide
    return shared
