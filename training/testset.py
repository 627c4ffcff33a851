"""The held-out questions: how they are made, and the hash that proves that they stayed the same.

Everything is drawn with shades, sizes, layouts, fonts, words and drawings that training never uses. Within a category
every answer comes equally often. `python -m training.testset` writes `testset.json`: counts and hashes.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL

from training import questions as q
from training.assets import load_assets
from training.conversations import ask_about, ask_more, ask_which, draw_pair, picture_of
from training.lists import COLOUR_NAMES, EMOJI_NAMES, NUMBERS, PLACES, SHAPES, article, plural
from training.paint import SIDE
from training.pictures import Picture, choose_number, draw_picture
from training.questions import Turn, ask
from training.scenes import Scene, Style, choose_background, choose_kinds, paint_chart, paint_text, paint_things

FILE = Path(__file__).parent / "testset.json"
SEED = "held out"


@dataclass
class Item:
    """One question of the test: its pictures, what was asked before, the question and the right answer."""

    category: str
    pictures: list[np.ndarray]
    question: str
    answer: str
    before: list[str] = field(default_factory=list)  # earlier questions; the model answers them itself
    pair: int = -1  # items of one pair share a number


@dataclass(frozen=True)
class Category:
    """How candidates are made and how many of each answer are kept."""

    name: str
    make: Callable[[random.Random, Style], tuple[list[Picture], Turn | None]]
    answers: tuple[str, ...]
    each: int


def things(rng: random.Random, style: Style) -> Picture:
    """A picture of things."""
    return draw_picture(rng, style, "things")


def about_things(asker: q.Asker, *, absent: bool = False) -> \
        Callable[[random.Random, Style], tuple[list[Picture], Turn | None]]:
    """Candidates of one asker, of things that are there or of things that are not."""
    def make(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
        picture = things(rng, style)
        turn = asker(picture.scene, rng)
        return [picture], turn if turn is not None and turn.absent == absent else None

    return make


def any_exists(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
    """Whether something is there."""
    picture = things(rng, style)
    return [picture], q.ask_exists(picture.scene, rng)


def false_premise(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
    """A question about a thing that is not there."""
    picture = things(rng, style)
    turn = rng.choice((q.ask_colour, q.ask_place))(picture.scene, rng)
    if turn is None or not turn.absent:
        return [picture], None
    return [picture], Turn(turn.kind, turn.question, turn.answer, absent=True)


def counted(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
    """How many of a group."""
    background = choose_background(rng)
    count = rng.randint(1, 9)
    colours = [name for name in COLOUR_NAMES if name != background]
    shape, colour = rng.choice(SHAPES), rng.choice(colours)
    kinds = [(shape, colour if rng.random() < 0.5 else rng.choice(colours)) for _ in range(count)]
    kinds += [(rng.choice([s for s in SHAPES if s != shape]), rng.choice(colours)) for _ in range(rng.randint(0, 3))]
    picture = picture_of(rng, paint_things(rng, style, background, kinds))
    return [picture], ask(rng, "count", f"{NUMBERS[count]}.", x=plural(shape))


def two(asker: Callable[[Scene, Scene, random.Random], Turn | None]) -> \
        Callable[[random.Random, Style], tuple[list[Picture], Turn | None]]:
    """Candidates about two pictures."""
    def make(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
        pictures = draw_pair(rng, style)
        return pictures, asker(pictures[0].scene, pictures[1].scene, rng)

    return make


def read_word(low: int, high: int) -> Callable[[random.Random, Style], tuple[list[Picture], Turn | None]]:
    """A word of so many letters that training never showed."""
    def make(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
        assert style.assets is not None
        length = rng.randint(low, high)
        word = rng.choice([w for w in style.assets.words if len(w) == length])
        picture = picture_of(rng, paint_text(rng, style, word))
        return [picture], ask(rng, "word", f'"{word}"')

    return make


def read_number(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
    """A number of one or two digits."""
    number = choose_number(rng)
    if len(number) > 2:
        return [], None
    picture = picture_of(rng, paint_text(rng, style, number))
    return [picture], ask(rng, "number", f"{number}.")


def name_drawing(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
    """The only drawing."""
    picture = picture_of(rng, paint_things(rng, style, choose_background(rng), [(rng.choice(EMOJI_NAMES), "")]))
    return [picture], ask(rng, "drawing", f"{article(picture.scene.things[0].name)}.")


def tallest(kind: str) -> Callable[[random.Random, Style], tuple[list[Picture], Turn | None]]:
    """The tallest bar by its letter or its colour."""
    def make(rng: random.Random, style: Style) -> tuple[list[Picture], Turn | None]:
        picture = picture_of(rng, paint_chart(rng, style, rng.randint(2, 6)))
        bar = max(picture.scene.bars, key=lambda b: b.height)
        if kind == "tallest":
            return [picture], ask(rng, kind, f'"{bar.label}"')
        if len({b.colour for b in picture.scene.bars}) == 1:
            return [picture], None
        return [picture], ask(rng, kind, f"{bar.colour}.")

    return make


def sentences(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as answers."""
    return tuple(f"{name[0].upper()}{name[1:]}." for name in names)


ANY = ("*",)  # answers that are balanced by how candidates are drawn
CATEGORIES = (
    Category("colour", about_things(q.ask_colour), sentences(COLOUR_NAMES), 20),
    Category("shape", about_things(q.ask_shape), sentences(tuple(article(s) for s in SHAPES)), 20),
    Category("place", about_things(q.ask_place), sentences(PLACES), 20),
    Category("relation", about_things(q.ask_relation), ("Yes.", "No."), 80),
    Category("exists", any_exists, ("Yes.", "No."), 120),
    Category("false premise", false_premise, ANY, 120),
    Category("count to 5", counted, sentences(NUMBERS[1:6]), 40),
    Category("count 6 to 9", counted, sentences(NUMBERS[6:10]), 40),
    Category("more", two(ask_more), ("The first.", "The second.", "Both the same."), 60),
    Category("which", two(ask_which), ("The first.", "The second."), 40),
    Category("number", read_number, ANY, 150),
    Category("word to 4", read_word(2, 4), ANY, 150),
    Category("word 5 to 8", read_word(5, 8), ANY, 150),
    Category("drawing", name_drawing, sentences(tuple(article(e) for e in EMOJI_NAMES)), 3),
    Category("tallest letter", tallest("tallest"), ANY, 80),
    Category("tallest colour", tallest("tallest colour"), sentences(tuple(c for c in COLOUR_NAMES if c != "white")), 8),
)


def fill(category: Category, style: Style) -> Iterator[Item]:
    """Draw candidates until every answer of the category has its number."""
    rng, have = random.Random(f"{SEED}-{category.name}"), Counter[str]()
    wanted = category.each * len(category.answers)
    while have.total() < wanted:
        pictures, turn = category.make(rng, style)
        if turn is None:
            continue
        key = "*" if category.answers == ANY else turn.answer
        if key not in category.answers or have[key] >= category.each:
            continue
        have[key] += 1
        yield Item(category.name, [p.pixels for p in pictures], turn.question, turn.answer)


def differing_pairs(style: Style, count: int) -> Iterator[Item]:
    """Two pictures alike but for one fact, and a question whose answer differs; the items of a pair follow each other.

    Both are painted from the same random numbers, so that everything else stays as it is.
    """
    rng, number = random.Random(f"{SEED}-pairs"), 0
    while number < count:
        background = choose_background(rng)
        kinds = choose_kinds(rng, background, drawings=False)[:6]
        index, seed = rng.randrange(len(kinds)), rng.random()
        name, colour = kinds[index]
        other = list(kinds)
        asker: q.Asker
        if number % 2:
            other[index] = (name, rng.choice([c for c in COLOUR_NAMES if c not in (colour, background)]))
            asker = q.ask_colour
        else:
            other[index] = (rng.choice([s for s in SHAPES if s != name]), colour)
            asker = q.ask_shape
        drawn = [picture_of(random.Random(seed), paint_things(random.Random(seed), style, background, k))
                 for k in (kinds, other)]
        seed = rng.random()
        turns = [asker(picture.scene, random.Random(seed)) for picture in drawn]
        first, second = turns
        if first is None or second is None or first.question != second.question or first.answer == second.answer:
            continue
        for picture, turn in zip(drawn, (first, second), strict=True):
            yield Item("pair", [picture.pixels], turn.question, turn.answer, pair=number)
        number += 1


def third_questions(style: Style, count: int) -> Iterator[Item]:
    """The same question as the first and as the third about a picture."""
    rng, number = random.Random(f"{SEED}-third"), 0
    while number < count:
        picture = things(rng, style)
        turns = ask_about(picture.scene, rng, 3)
        if len(turns) < 3 or "it" in turns[2].kind.split() or turns[2].kind == "describe":
            continue
        last = turns[2]
        yield Item("asked first", [picture.pixels], last.question, last.answer, pair=number)
        yield Item("asked third", [picture.pixels], last.question, last.answer, [t.question for t in turns[:2]], number)
        number += 1


def build(share: float = 1.0) -> list[Item]:
    """All held-out questions, or about a share of them (every n-th of each category)."""
    style, items = Style("test", load_assets("test")), []
    every = max(1, round(1 / share))
    for category in CATEGORIES:
        items += list(fill(category, style))[::every]
    for source in (differing_pairs(style, 150), third_questions(style, 200)):
        listed = list(source)
        items += [item for at in range(0, len(listed), 2 * every) for item in listed[at:at + 2]]
    return items


def blanks(items: list[Item]) -> list[Item]:
    """Questions about pictures that show nothing: white, or noise."""
    rng, found = np.random.default_rng(5), []
    for number, item in enumerate(i for i in items if i.category in ("colour", "shape", "place", "count to 5")):
        size = (SIDE, SIDE, 3)
        empty = rng.integers(0, 256, size, np.uint8) if number % 2 else np.full(size, 255, np.uint8)
        found.append(Item(f"blank: {item.category}", [empty], item.question, item.answer))
    return found


def describe(items: list[Item]) -> dict[str, object]:
    """Counts and hashes of a test set."""
    words, pixels = hashlib.sha256(), hashlib.sha256()
    for item in items:
        words.update(json.dumps([item.category, item.before, item.question, item.answer]).encode())
        for picture in item.pictures:
            pixels.update(picture.tobytes())
    return {"seed": SEED, "questions": len(items), "categories": dict(Counter(item.category for item in items)),
            "sha256 of questions and answers": words.hexdigest(), "sha256 of pixels": pixels.hexdigest(),
            "pillow": PIL.__version__}


if __name__ == "__main__":
    FILE.write_text(json.dumps(describe(build()), indent=1) + "\n")
