"""`opsin demo`: draws three shapes by chance, or words of yours, and asks the bundled model; what is true is said."""

from __future__ import annotations

import argparse
import errno
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.cli.progress import Progress
from opsin.config import expanded
from opsin.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 384
GROUND = (246, 244, 238)
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
LONGEST = 8  # characters of a word that the bundled model was taught to read
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
    parser.add_argument(
        "words", nargs="?", default="", metavar="WORDS", help="words or numbers to draw, such as 'HELLO 42'"
    )
    parser.add_argument("--seed", type=options.natural, metavar="N", help="the same picture again")
    parser.add_argument("--save", type=expanded, metavar="FILE", help="keep the picture")
    parser.add_argument("-t", "--threads", type=options.positive, metavar="N", help="compute threads")


@dataclass(frozen=True)
class Page:
    """A picture, what is drawn on it in words, and questions with their true answers."""

    picture: Image
    about: str
    questions: list[tuple[str, str]]


def run(args: argparse.Namespace) -> int:
    """Each picture's second and later questions find the picture's rows in the cache."""
    chance = random.Random(args.seed)
    pages = [written(word, chance) for word in readable(args.words)] or [drawn(chance)]
    if args.save is not None:
        _save(pages, args.save)

    import opsin
    from opsin.hub.bundled import ABOUT, bundled

    print(ABOUT)
    with Progress("loading") as progress:
        model = opsin.load(bundled(), threads=args.threads, sequences=1, notice=progress)
    options.tell(model)
    with model:
        for page in pages:
            print(f"Drawn: {page.about}.")
            for question, truth in page.questions:
                content = [page.picture, question]
                answer = model.chat([{"role": "user", "content": content}], max_tokens=32).text.strip()
                print(f"{question} {answer}" + ("" if answer == truth else f" (no: {truth})"), flush=True)
    return 0


def readable(words: str) -> list[str]:
    """The words, each of letters alone or digits alone. Raises RequestError for what the model was never taught."""
    for word in words.split():
        if len(word) > LONGEST or not (word.isascii() and (word.isalpha() or word.isdigit())):
            raise RequestError(
                f"{word!r}: the bundled model reads words of A to Z and numbers, of up to {LONGEST} characters",
                hint="for example: opsin demo 'HELLO 42'",
            )
    return words.split()


def written(word: str, chance: random.Random) -> Page:
    """A word on a light ground in Pillow's default font, which the model never saw, somewhere and in some colour."""
    from PIL import Image, ImageDraw, ImageFont

    picture, colour = Image.new("RGB", (SIDE, SIDE), GROUND), chance.choice(sorted(COLOURS.keys() - {"yellow"}))
    widest = ImageFont.load_default(100).getlength(word) / 100
    font = ImageFont.load_default(int(min(150, 0.9 * SIDE / widest) * chance.uniform(0.7, 1)))
    left, top, right, bottom = font.getbbox(word)
    x = (SIDE - (right - left)) * chance.uniform(0.1, 0.9) - left
    y = (SIDE - (bottom - top)) * chance.uniform(0.1, 0.9) - top
    ImageDraw.Draw(picture).text((x, y), word, COLOURS[colour], font)
    asked = ("What number is this?", f"{word}.") if word.isdigit() else ("What does it say?", f'"{word.lower()}"')
    return Page(picture, f"{word}, in {colour}", [asked, ("What colour is the text?", f"{colour.capitalize()}.")])


def drawn(chance: random.Random) -> Page:
    """Three shapes."""
    things = scene(chance)
    picture = draw(things, chance)
    return Page(picture, ", ".join(f"a {t.colour} {t.shape} ({t.place})" for t in things), questions(things, chance))


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

    picture = Image.new("RGB", (SIDE, SIDE), GROUND)
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


def _save(pages: list[Page], path: Path) -> None:
    """Write the pictures: one under the name given, several with numbers before its ending."""
    several = len(pages) > 1
    for number, page in enumerate(pages, 1):
        name = path.with_name(f"{path.stem}-{number}{path.suffix}") if several else path
        try:
            page.picture.save(name)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the name is not to blame
            raise RequestError(
                f"{name}: {error}", hint="give a name such as picture.png in a folder of yours"
            ) from None
