"""Decides what a picture shows and paints it: things in a scene, words, numbers, charts.

A `Scene` holds the facts that questions are asked about. `style` says what the split may use: shades, sizes, layouts,
fonts and drawings. Knows no question.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from training.assets import Assets
from training.lists import COLOUR_NAMES, COLOURS, EMOJI_NAMES, SHAPES
from training.paint import SIDE, Box, Canvas, Colour, Tint, load_font

SIZES = {"train": [*range(22, 33), *range(37, 60)], "test": [33, 34, 35, 36]}
LAYOUTS = {"train": ("free", "free", "free", "grid", "row"), "test": ("free", "circle", "diagonal")}
TINTS: tuple[Colour, ...] = ((225, 235, 250), (250, 240, 225), (230, 245, 230), (245, 230, 240), (238, 238, 225))


@dataclass(frozen=True)
class Thing:
    """A thing in a scene; `colour` is empty for a drawing."""

    name: str
    colour: str
    x: int
    y: int
    size: int


@dataclass(frozen=True)
class Bar:
    """A bar of a chart."""

    label: str
    colour: str
    height: int
    spot: tuple[float, float] = (0.0, 0.0)  # the middle of the label


@dataclass
class Scene:
    """What a picture shows."""

    background: str = ""
    things: list[Thing] = field(default_factory=list)
    text: str = ""
    text_colour: str = ""
    spots: list[tuple[float, float]] = field(default_factory=list)  # the middles of the text's characters
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Style:
    """What a split may draw with. Without assets only shapes and bars without labels are drawn."""

    split: str
    assets: Assets | None


def shade(rng: random.Random, colour: str, split: str) -> Colour:
    """A shade of a colour, varied a little."""
    base = rng.choice(COLOURS[colour][split])
    spread = 3 if colour in ("black", "white") else 8
    red, green, blue = (min(255, max(0, value + rng.randint(-spread, spread))) for value in base)
    return red, green, blue


def distance(a: Colour, b: Colour) -> float:
    """How far two colours lie apart."""
    return math.dist(a, b)


def paint_background(rng: random.Random, colour: str, split: str) -> tuple[Image.Image, Colour]:
    """A plain, shaded, lined or grainy background; an empty colour asks for a tint without a name."""
    rgb = shade(rng, colour, split) if colour else rng.choice(TINTS)
    kind = rng.random()
    picture = Image.new("RGB", (SIDE, SIDE), rgb)
    if kind < 0.12:
        low = tuple(max(0, value - 25) for value in rgb)
        mask = Image.linear_gradient("L").resize((SIDE, SIDE))
        if rng.random() < 0.5:
            mask = mask.transpose(Image.Transpose.ROTATE_90)
        picture.paste(low, (0, 0, SIDE, SIDE), mask)
    elif kind < 0.2:
        line = tuple(value - 22 if value > 60 else value + 22 for value in rgb)
        step, draw = rng.randint(8, 24), ImageDraw.Draw(picture)
        for at in range(rng.randint(0, step), SIDE, step):
            draw.line((0, at, SIDE, at) if kind < 0.16 else (at, 0, at, SIDE), fill=line)
    return picture, rgb


GRAIN = np.random.default_rng(7).normal(0, 1, (SIDE * 2, SIDE, 3)).astype(np.float32)


def wear(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    """Grain, softness and brightness, sometimes."""
    choice = rng.random()
    if choice < 0.12:
        start = rng.randrange(SIDE)
        noisy = pixels + GRAIN[start:start + SIDE] * rng.uniform(2, 9)
        return np.clip(noisy, 0, 255).astype(np.uint8)
    if choice < 0.24:
        side = rng.randint(110, 180)
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8)
    return pixels


def spots(rng: random.Random, layout: str, count: int, size: int) -> list[tuple[int, int]] | None:
    """Middles of `count` places that do not overlap, or None when they do not fit."""
    half = size // 2 + 3
    low, high = half, SIDE - half
    if layout == "grid":
        side = math.ceil(math.sqrt(count))
        step = (SIDE - 8) // side
        if step < size + 4:
            return None
        cells = rng.sample([(x, y) for y in range(side) for x in range(side)], count)
        slack = max(0, (step - size) // 2 - 2)
        return [(4 + step * x + step // 2 + rng.randint(-slack, slack) // 2,
                 4 + step * y + step // 2 + rng.randint(-slack, slack) // 2) for x, y in cells]
    if layout in ("row", "diagonal"):
        if count * (size + 4) > SIDE - 8:
            return None
        step = (SIDE - 8) / count
        line = rng.randint(low, high)
        down = rng.random() < 0.5
        at = [int(4 + step * (i + 0.5)) for i in range(count)]
        if layout == "diagonal":
            return [(a, a if down else SIDE - a) for a in at]
        return [(line, a) if down else (a, line) for a in at]
    if layout == "circle":
        radius = (high - low) / 2
        if count > 1 and 2 * radius * math.sin(math.pi / count) < size + 4:
            return None
        turn = rng.uniform(0, 2 * math.pi)
        return [(int(SIDE / 2 + radius * math.cos(turn + 2 * math.pi * i / count)),
                 int(SIDE / 2 + radius * math.sin(turn + 2 * math.pi * i / count))) for i in range(count)]
    return free_spots(rng, count, size, low, high)


def free_spots(rng: random.Random, count: int, size: int, low: int, high: int) -> list[tuple[int, int]] | None:
    """Random middles at least `size` and a little apart."""
    found: list[tuple[int, int]] = []
    apart = (size + 5) ** 2
    for _ in range(count * 25):
        x, y = rng.randint(low, high), rng.randint(low, high)
        if all((x - a) ** 2 + (y - b) ** 2 >= apart for a, b in found):
            found.append((x, y))
            if len(found) == count:
                return found
    return None


def place(rng: random.Random, style: Style, count: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Middles and sizes for `count` things, smaller where they are many."""
    biggest = 60 if count <= 4 else 46 if count <= 7 or style.split == "train" else 36
    sizes = [size for size in SIZES[style.split] if size <= biggest]
    if count <= 2:
        sizes = sizes + list(range(62, 150 if count == 1 else 86, 2))
    while True:
        layout = rng.choice(LAYOUTS[style.split])
        own = [rng.choice(sizes) for _ in range(count)]
        if rng.random() < 0.4:
            own = [own[0]] * count
        if (at := spots(rng, layout, count, max(own))) is not None:
            rng.shuffle(at)
            return at, own


def choose_background(rng: random.Random) -> str:
    """Mostly white, sometimes another colour, sometimes one without a name."""
    choice = rng.random()
    if choice < 0.5:
        return "white"
    return "" if choice < 0.65 else rng.choice(COLOUR_NAMES)


def choose_tint(rng: random.Random, split: str) -> Tint | None:
    """In training mostly other strengths of red, green and blue and sometimes a mirror, for there are few styles."""
    if split != "train" or rng.random() < 0.3:
        return None
    light = rng.uniform(0.8, 1.2)
    return Tint(*(light * rng.uniform(0.8, 1.2) for _ in range(3)), mirrored=rng.random() < 0.3)


def paint_thing(rng: random.Random, style: Style, canvas: Canvas, ground: Colour, thing: Thing, *,
                outlined: bool) -> None:
    """Add one thing to a canvas, in a shade of its colour that stands out from the ground."""
    middle = thing.x, thing.y
    if thing.name not in SHAPES:
        assert style.assets is not None
        path, angle = rng.choice(style.assets.drawings[thing.name]), rng.choice((0, 0, 0, -15, 15))
        canvas.add_drawing(thing.name, path, middle, thing.size, angle=angle, vary=choose_tint(rng, style.split))
        return
    rgb = shade(rng, thing.colour, style.split)
    for _ in range(8):
        if distance(rgb, ground) > 70:
            break
        rgb = shade(rng, thing.colour, style.split)
    angle = rng.choice((0, 0, 0, -12, -6, 6, 12)) if thing.name not in ("moon", "arrow") else \
        rng.randrange(0, 360, 15)
    edge = (40, 40, 40) if outlined or distance(rgb, ground) < 70 else None
    canvas.add_shape(thing.name, middle, thing.size, angle=angle, colour=thing.colour, rgb=rgb, outline=edge)


def paint_things(rng: random.Random, style: Style, background: str, kinds: list[tuple[str, str]]) -> \
        tuple[Scene, Canvas]:
    """A scene of the given (name, colour) things; colours equal to the background's are the caller's to avoid."""
    picture, ground = paint_background(rng, background, style.split)
    canvas, scene = Canvas(picture, background), Scene(background)
    middles, sizes = place(rng, style, len(kinds))
    outlined = rng.random() < 0.15
    for (name, colour), (x, y), size in zip(kinds, middles, sizes, strict=True):
        paint_thing(rng, style, canvas, ground, Thing(name, colour, x, y, size), outlined=outlined)
        scene.things.append(Thing(name, colour, x, y, size))
    return scene, canvas


def text_shade(rng: random.Random, style: Style, background: str, ground: Colour, black: float = 0.0) -> \
        tuple[str, Colour]:
    """A colour and its shade that can be read on the ground; `black` is the share of texts that are."""
    while True:
        colour = rng.choice(COLOUR_NAMES) if not black or rng.random() < 1 - black else "black"
        rgb = shade(rng, colour, style.split)
        if colour != background and distance(rgb, ground) > 110:
            return colour, rgb


def paint_text(rng: random.Random, style: Style, text: str) -> tuple[Scene, Canvas]:
    """One word or number, as large as fits or smaller, anywhere."""
    assert style.assets is not None
    background = choose_background(rng)
    picture, ground = paint_background(rng, background, style.split)
    canvas = Canvas(picture, background)
    colour, rgb = text_shade(rng, style, background, ground, black=0.4)
    shown = rng.choice((text, text.upper(), text.upper(), text.capitalize())) if text.isalpha() else text
    path = rng.choice(style.assets.fonts)
    widest = load_font(path, 40).getlength(shown) / 40
    limit = int(min(80.0, (SIDE - 12) / max(widest, 0.1)))
    size = rng.randint(max(12, min(limit, 18)), max(limit, 18)) if limit > 18 else limit
    font = load_font(path, size)
    left, top, right, bottom = font.getbbox(shown)
    x = rng.randint(2, int(max(2, SIDE - 2 - right)))
    y = rng.randint(int(2 - top), int(max(2 - top, SIDE - 2 - bottom)))
    spots = canvas.add_text(shown, (x, y), font, colour=colour, rgb=rgb)
    return Scene(background, text=text, text_colour=colour, spots=spots), canvas


def paint_scale(rng: random.Random, style: Style, canvas: Canvas, left: int, base: int) -> None:
    """Numbers and ticks beside a chart, and often a frame around it, as programs that plot draw them."""
    assert style.assets is not None
    draw, top = ImageDraw.Draw(canvas.picture), rng.randint(3, 16)
    font = load_font(rng.choice(style.assets.fonts), rng.randint(8, 15))
    if rng.random() < 0.7:
        draw.rectangle((left, top, SIDE - rng.randint(2, 10), base), outline=(0, 0, 0))
    steps, unit, inside = rng.randint(3, 8), rng.choice((1, 2, 2, 5, 10)), rng.random() < 0.3
    for index in range(steps + 1):
        at = int(base - (base - top) * index / steps)
        draw.line((left, at, left + 4, at) if inside else (left - 3, at, left, at), fill=(0, 0, 0))
        text = str(index * unit)
        y = at - font.getbbox(text)[3] // 2 - 1
        canvas.add_text(text, (int(left - 5 - font.getlength(text)), int(y)), font, colour="black", rgb=(0, 0, 0))


def paint_chart(rng: random.Random, style: Style, count: int) -> tuple[Scene, Canvas]:
    """A bar chart with one letter below each bar, heights well apart."""
    picture, _ = paint_background(rng, "white", style.split)
    canvas, scene = Canvas(picture, "white"), Scene("white")
    base, left = rng.randint(150, 170), rng.randint(14, 30)
    draw = ImageDraw.Draw(picture)
    if style.split == "train" and style.assets and rng.random() < 0.4:
        left += rng.randint(4, 18)
        paint_scale(rng, style, canvas, left, base)
    step = (SIDE - left - 6) / count
    width = step * rng.uniform(0.5, 0.85)
    levels = rng.sample(range(2, 13), count)
    unit = (base - rng.randint(8, 24)) / 12.5
    colours = rng.sample([name for name in COLOUR_NAMES if name != "white"], count)
    if rng.random() < 0.35:
        colours = [colours[0]] * count
    labels = rng.sample("abcdefghijklmnoprstuvwxyz", count) if rng.random() < 0.5 else list("abcdef"[:count])
    if rng.random() < 0.6:
        draw.line((left, 6, left, base), fill=(60, 60, 60))
        draw.line((left, base, SIDE - 4, base), fill=(60, 60, 60))
    if rng.random() < 0.3:
        for y in range(base - 30, 6, -30):
            draw.line((left, y, SIDE - 4, y), fill=(215, 215, 215))
    path = rng.choice(style.assets.fonts) if style.assets else ""
    for index in range(count):
        start = left + step * index + (step - width) / 2
        box = Box(start, base - levels[index] * unit, start + width, base)
        canvas.add_bar(box, colours[index], shade(rng, colours[index], style.split))
        spot = (0.0, 0.0)
        if path:
            font = load_font(path, rng.randint(15, 20))
            letter = labels[index].upper()
            at = (int(box.middle[0] - font.getlength(letter) / 2), base + 1)
            spot, = canvas.add_text(letter, at, font, colour="black", rgb=(20, 20, 20))
        scene.bars.append(Bar(labels[index] if path else "", colours[index], levels[index], spot))
    return scene, canvas


def choose_kinds(rng: random.Random, background: str, *, drawings: bool) -> list[tuple[str, str]]:
    """What a scene shows: one group that shares a trait, and others beside it."""
    colours = [name for name in COLOUR_NAMES if name != background]
    if drawings:
        count = rng.choice((1, 1, 2, 2, 3, 4, 5, 6))
        if rng.random() < 0.4:
            return [(rng.choice(EMOJI_NAMES), "") for _ in range(1)] * count
        pool = rng.sample(EMOJI_NAMES, count)
        kinds = [(name, "") for name in pool]
        if count < 4 and rng.random() < 0.3:
            kinds += [(rng.choice(SHAPES), rng.choice(colours)) for _ in range(rng.randint(1, 2))]
        return kinds
    shape, colour = rng.choice(SHAPES), rng.choice(colours)
    share = rng.choice(("shape", "shape", "colour", "both"))
    count = 1 if rng.random() < 0.35 else rng.randint(1, 9)
    kinds = [(shape if share != "colour" else rng.choice(SHAPES), colour if share != "shape" else rng.choice(colours))
             for _ in range(count)]
    for _ in range(rng.choice((0, 1, 2, 3, 4)) if count < 8 else rng.choice((0, 0, 1))):
        other = (rng.choice(SHAPES), rng.choice(colours))
        if not ((share != "colour" and other[0] == shape) or (share == "colour" and other[1] == colour)):
            kinds.append(other)
    return kinds


def choose_group(rng: random.Random, background: str) -> list[tuple[str, str]]:
    """One to nine of a shape, equally often, and up to as many others as fit beside them."""
    colours = [name for name in COLOUR_NAMES if name != background]
    count, (shape, other) = rng.randint(1, 9), rng.sample(SHAPES, 2)
    colour = rng.choice(colours) if rng.random() < 0.5 else ""
    kinds = [(shape, colour or rng.choice(colours)) for _ in range(count)]
    if rng.random() < 0.4:
        beside = [(other, rng.choice(colours))] * rng.randint(1, 5)
    else:
        rest = [name for name in SHAPES if name != shape]
        beside = [(rng.choice(rest), rng.choice(colours)) for _ in range(rng.randint(0, 4))]
    return kinds + beside[:12 - count]


def choose_few(rng: random.Random, background: str) -> list[tuple[str, str]]:
    """One to three shapes of any colour: what is asked about them is quickly found."""
    colours = [name for name in COLOUR_NAMES if name != background]
    return [(rng.choice(SHAPES), rng.choice(colours)) for _ in range(rng.randint(1, 3))]
