"""`opsin demo`: draws three shapes by chance and asks the bundled model about them; what is true stands beside."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.progress import Progress
from opsin.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 384
COLOURS = {
    "red": (205, 35, 40),
    "yellow": (250, 225, 30),
    "green": (25, 150, 60),
    "blue": (30, 85, 215),
    "purple": (125, 40, 165),
    "black": (15, 15, 15),
}
OUTLINES = {  # in the square from -1 to 1; a circle has none
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)),
    "diamond": ((0.0, -1.0), (0.75, 0.0), (0.0, 1.0), (-0.75, 0.0)),
    "circle": (),
}
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class Thing:
    """A shape in one of nine cells."""

    shape: str
    colour: str
    cell: int

    @property
    def place(self) -> str:
        """The cell in words."""
        return f"{ROWS[self.cell // 3]} {COLUMNS[self.cell % 3]}".strip() or "centre"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("demo", help="draw shapes and ask the bundled model", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("--seed", type=options.natural, metavar="N", help="the same picture again")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the picture")
    parser.add_argument("-t", "--threads", type=options.positive, metavar="N", help="compute threads")


def run(args: argparse.Namespace) -> int:
    """One picture, five questions; the second and later ones find the picture's rows in the cache."""
    chance = random.Random(args.seed)
    things = scene(chance)
    picture = draw(things, chance)
    if args.save is not None:
        _save(picture, args.save)

    import opsin
    from opsin.hub.bundled import ABOUT, bundled

    print(f"{ABOUT}\nDrawn: {', '.join(f'a {t.colour} {t.shape} ({t.place})' for t in things)}.")
    with Progress("loading") as progress:
        model = opsin.load(bundled(), threads=args.threads, sequences=1, notice=progress)
    with model:
        for question, truth in questions(things, chance):
            answer = model.chat([{"role": "user", "content": [picture, question]}], max_tokens=32).text.strip()
            print(f"{question} {answer}" + ("" if answer == truth else f" (no: {truth})"), flush=True)
    return 0


def scene(chance: random.Random) -> list[Thing]:
    """Three things that differ in shape, colour and place."""
    shapes, colours = chance.sample(sorted(OUTLINES), 3), chance.sample(sorted(COLOURS), 3)
    return [Thing(*parts) for parts in zip(shapes, colours, chance.sample(range(9), 3), strict=True)]


def questions(things: list[Thing], chance: random.Random) -> list[tuple[str, str]]:
    """Questions with their true answers."""
    first, second, third = things
    missing = next(shape for shape in OUTLINES if shape not in {t.shape for t in things})
    asked = chance.choice([first.shape, missing])
    return [
        (f"What colour is the {first.shape}?", f"{first.colour.capitalize()}."),
        (f"What shape is the {second.colour} thing?", f"A {second.shape}."),
        (f"Where is the {third.shape}?", f"{third.place.capitalize()}."),
        (f"Is there a {asked}?", "No." if asked == missing else "Yes."),
        ("How many things are there?", "Three."),
    ]


def draw(things: list[Thing], chance: random.Random) -> Image:
    """The things on a light ground, each near the middle of its cell."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), (246, 244, 238))
    pen, third = ImageDraw.Draw(picture), SIDE / 3
    for thing in things:
        x = third * (thing.cell % 3 + chance.uniform(0.45, 0.55))
        y = third * (thing.cell // 3 + chance.uniform(0.45, 0.55))
        half, colour = chance.uniform(38, 50), COLOURS[thing.colour]
        outline = [(x + half * across, y + half * down) for across, down in OUTLINES[thing.shape]]
        if outline:
            pen.polygon(outline, colour)
        else:
            pen.ellipse((x - half, y - half, x + half, y + half), colour)
    return picture


def _save(picture: Image, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: {error}", hint="give a name such as picture.png in a folder of yours") from None
