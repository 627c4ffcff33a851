"""Questions and answers about one scene. Each asker takes a scene and returns a turn, or None where it makes no sense.

Answers are short sentences. What is asked is chosen so that within a template every answer is about as likely as any
other. Knows no pictures and no tokens.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training.lists import COLOUR_NAMES, EMOJI_NAMES, NUMBERS, PLACES, SHAPES, article, plural
from training.paint import SIDE
from training.phrases import PHRASES
from training.scenes import Scene, Thing

MARGIN = 7  # pixels that a middle must keep from the border of a ninth for its place to be asked
APART = 24  # pixels by which two things must differ for left, right, above, below


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    `kind` is its template, `absent` whether the answer is that it is not there; `spots` are the middles of what the
    answer's characters are read from, where they are read.
    """

    kind: str
    question: str
    answer: str
    absent: bool = False
    spots: tuple[tuple[float, float], ...] = ()


Asker = Callable[[Scene, random.Random], Turn | None]


def ask(rng: random.Random, kind: str, answer: str, *, absent: bool = False,
        spots: Iterable[tuple[float, float]] = (), **fill: str) -> Turn:
    """A turn in one of the template's phrasings."""
    question = rng.choice(PHRASES[kind]).format(**fill)
    return Turn(kind, question, answer[0].upper() + answer[1:], absent, tuple(spots))


def full_name(thing: Thing) -> str:
    """A thing's colour and name."""
    return f"{thing.colour} {thing.name}" if thing.colour else thing.name


def unique_names(scene: Scene) -> list[tuple[str, Thing]]:
    """Every way to name exactly one thing: by its name alone, or by colour and name."""
    names, fulls = Counter(t.name for t in scene.things), Counter(full_name(t) for t in scene.things)
    short = [(t.name, t) for t in scene.things if names[t.name] == 1]
    return short + [(full_name(t), t) for t in scene.things if t.colour and fulls[full_name(t)] == 1]


def missing(scene: Scene, rng: random.Random, *, hard: bool = True) -> str:
    """A name, perhaps with a colour, of something that is not in the scene."""
    have = {full_name(t) for t in scene.things}
    names = {t.name for t in scene.things}
    if hard and rng.random() < 0.5:
        shapes = [n for n in names if n in SHAPES]
        colours = [t.colour for t in scene.things if t.colour]
        crossed = [f"{c} {n}" for c in sorted(set(colours)) for n in sorted(shapes) if f"{c} {n}" not in have]
        if crossed:
            return rng.choice(crossed)
    pool = EMOJI_NAMES if any(n in EMOJI_NAMES for n in names) and rng.random() < 0.8 else SHAPES
    while (name := rng.choice(pool)) in names:
        pass
    return f"{rng.choice(COLOUR_NAMES)} {name}" if pool is SHAPES and rng.random() < 0.4 else name


def ask_colour(scene: Scene, rng: random.Random) -> Turn | None:
    """The colour of a shape that is there once."""
    found = [t for name, t in unique_names(scene) if t.colour and name == t.name]
    if rng.random() < 0.12 and scene.things:
        names = [s for s in SHAPES if all(t.name != s for t in scene.things)]
        name = rng.choice(names)
        return ask(rng, "colour", f"There is no {name}.", absent=True, x=name)
    if not found:
        return None
    thing = rng.choice(found)
    return ask(rng, "colour", f"{thing.colour}.", x=thing.name)


def ask_shape(scene: Scene, rng: random.Random) -> Turn | None:
    """The shape of the only thing of a colour."""
    count = Counter(t.colour for t in scene.things)
    if any(not t.colour for t in scene.things):
        return None
    if rng.random() < 0.12 and scene.things:
        colour = rng.choice([c for c in COLOUR_NAMES if c not in count])
        return ask(rng, "shape", f"There is no {colour} thing.", absent=True, x=colour)
    found = [t for t in scene.things if count[t.colour] == 1]
    if not found:
        return None
    thing = rng.choice(found)
    return ask(rng, "shape", f"{article(thing.name)}.", x=thing.colour)


def ask_count(scene: Scene, rng: random.Random) -> Turn | None:
    """How many of a name, of a colour, of both, or in all."""
    if not scene.things:
        return None
    things = scene.things
    groups = Counter(plural(t.name) for t in things) + Counter(f"{t.colour} things" for t in things if t.colour) \
        + Counter(f"{t.colour} {plural(t.name)}" for t in things if t.colour)
    groups["things"] = len(things)
    choice = rng.random()
    if choice < 0.1:
        *colour, name = missing(scene, rng).rsplit(" ", 1)
        return ask(rng, "count", "Zero.", absent=True, x=" ".join([*colour, plural(name)]))
    sizes = sorted(set(groups.values()))
    size = rng.choice(sizes) if choice < 0.8 else sizes[-1]
    if size > 9:
        return None
    name = rng.choice(sorted(n for n, c in groups.items() if c == size))
    return ask(rng, "count", f"{NUMBERS[size]}.", x=name)


def place_of(thing: Thing) -> str | None:
    """The ninth that holds a thing's middle, or None near a border between ninths."""
    third = SIDE / 3
    for value in (thing.x, thing.y):
        if min(abs(value - third), abs(value - 2 * third)) < MARGIN:
            return None
    return PLACES[int(thing.y // third) * 3 + int(thing.x // third)]


def ask_place(scene: Scene, rng: random.Random) -> Turn | None:
    """Where a thing is, in ninths."""
    if rng.random() < 0.1 and scene.things:
        name = missing(scene, rng)
        return ask(rng, "place", f"There is no {name}.", absent=True, x=name)
    found = [(name, place) for name, t in unique_names(scene) if (place := place_of(t))]
    if not found:
        return None
    name, place = rng.choice(found)
    return ask(rng, "place", f"{place}.", x=name)


def ask_relation(scene: Scene, rng: random.Random) -> Turn | None:
    """Whether one thing is left of, right of, above or below another."""
    named = unique_names(scene)
    pairs = [(a, b) for a in named for b in named if a[1] is not b[1]]
    if not pairs:
        return None
    (x, a), (y, b) = rng.choice(pairs)
    kind = rng.choice(("left", "right", "above", "below"))
    gap = b.x - a.x if kind in ("left", "right") else b.y - a.y
    if abs(gap) < APART:
        return None
    yes = (gap > 0) == (kind in ("left", "above"))
    return ask(rng, kind, "Yes." if yes else "No.", x=x, y=y)


def ask_extreme(scene: Scene, rng: random.Random) -> Turn | None:
    """What is furthest to one side."""
    if len(scene.things) < 2:
        return None
    kind = rng.choice(("leftmost", "rightmost", "topmost", "lowest"))
    sign = 1 if kind in ("leftmost", "topmost") else -1
    order = sorted(scene.things, key=lambda t: sign * (t.x if kind in ("leftmost", "rightmost") else t.y))
    first, second = order[:2]
    gap = abs(first.x - second.x) if kind in ("leftmost", "rightmost") else abs(first.y - second.y)
    return ask(rng, kind, f"{article(full_name(first))}.") if gap >= 14 else None


def ask_at(scene: Scene, rng: random.Random) -> Turn | None:
    """What is in one ninth, where that is clear."""
    if not scene.things:
        return None
    places = [place_of(t) for t in scene.things]
    if None in places:
        return None
    if rng.random() < 0.15:
        empty = [p for p in PLACES if p not in places and not any(touches(t, p) for t in scene.things)]
        return ask(rng, "at", "Nothing.", absent=True, place=rng.choice(empty)) if empty else None
    alone = [(p, t) for p, t in zip(places, scene.things, strict=True) if p and places.count(p) == 1]
    if not alone:
        return None
    place, thing = rng.choice(alone)
    return ask(rng, "at", f"{article(full_name(thing))}.", place=place)


def touches(thing: Thing, place: str) -> bool:
    """Whether a thing reaches into a ninth."""
    third, index = SIDE / 3, PLACES.index(place)
    left, top = (index % 3) * third, (index // 3) * third
    reach = thing.size / 2
    return left - reach < thing.x < left + third + reach and top - reach < thing.y < top + third + reach


def ask_exists(scene: Scene, rng: random.Random) -> Turn | None:
    """Whether something is there; yes as often as no."""
    if rng.random() < 0.5:
        return ask(rng, "exists", "No.", absent=True, x=article(missing(scene, rng)))
    if not scene.things:
        return None
    thing = rng.choice(scene.things)
    return ask(rng, "exists", "Yes.", x=article(thing.name if rng.random() < 0.4 else full_name(thing)))


def ask_background(scene: Scene, rng: random.Random) -> Turn | None:
    """The colour of the background."""
    return ask(rng, "background", f"{scene.background}.") if scene.background else None


def ask_describe(scene: Scene, rng: random.Random) -> Turn | None:
    """Everything there is, in reading order of the ninths, while it is not much."""
    if scene.text:
        return ask(rng, "describe", f"{scene.text}." if scene.text.isdigit() else f'"{scene.text}"', spots=scene.spots)
    if scene.bars:
        return ask(rng, "describe", f"A chart with {NUMBERS[len(scene.bars)]} bars.")
    places = [place_of(t) for t in scene.things]
    if len(scene.things) > 4 or None in places or len(set(places)) < len(places):
        return None
    ordered = sorted(scene.things, key=lambda t: PLACES.index(place_of(t) or "top"))
    names = [article(full_name(t)) for t in ordered]
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return ask(rng, "describe", f"{listed}.")


def ask_drawing(scene: Scene, rng: random.Random) -> Turn | None:
    """What the only drawing shows."""
    if len(scene.things) != 1 or scene.things[0].colour:
        return None
    return ask(rng, "drawing", f"{article(scene.things[0].name)}.")


def ask_text(scene: Scene, rng: random.Random) -> Turn | None:
    """What is written; or that nothing is."""
    if not scene.text:
        return ask(rng, "word", "There is no text.", absent=True)
    if scene.text.isdigit():
        return ask(rng, "number", f"{scene.text}.", spots=scene.spots)
    return ask(rng, "word", f'"{scene.text}"', spots=scene.spots)


def ask_letters(scene: Scene, rng: random.Random) -> Turn | None:
    """The first or last letter, or how many there are."""
    if not scene.text.isalpha():
        return None
    kind = rng.choice(("first letter", "last letter", "letters"))
    if kind == "letters":
        return ask(rng, kind, f"{NUMBERS[len(scene.text)]}.")
    index = 0 if kind == "first letter" else -1
    return ask(rng, kind, f'"{scene.text[index]}"', spots=[scene.spots[index]])


def ask_text_colour(scene: Scene, rng: random.Random) -> Turn | None:
    """The colour of what is written."""
    return ask(rng, "word colour", f"{scene.text_colour}.") if scene.text_colour else None


def ask_extreme_bar(scene: Scene, rng: random.Random) -> Turn | None:
    """The tallest or shortest bar, by its letter or its colour."""
    if not scene.bars:
        return ask(rng, "tallest", "There is no chart.", absent=True)
    kind = rng.choice(("tallest", "tallest", "shortest"))
    bar = (max if kind == "tallest" else min)(scene.bars, key=lambda b: b.height)
    coloured = len({b.colour for b in scene.bars}) > 1
    if coloured and (not bar.label or rng.random() < 0.5):
        return ask(rng, f"{kind} colour", f"{bar.colour}.")
    return ask(rng, kind, f'"{bar.label}"', spots=[bar.spot]) if bar.label else None


def ask_bar(scene: Scene, rng: random.Random) -> Turn | None:
    """How many bars, the colour of one, or which of two is taller."""
    if not scene.bars:
        return None
    choice = rng.random()
    if choice < 0.35:
        return ask(rng, "bars", f"{NUMBERS[len(scene.bars)]}.")
    if choice < 0.6 and scene.bars[0].label:
        bar = rng.choice(scene.bars)
        return ask(rng, "bar", f"{bar.colour}.", x=f'"{bar.label}"')
    if len({b.colour for b in scene.bars}) == 1:
        return None
    a, b = rng.sample(scene.bars, 2)
    return ask(rng, "taller", "Yes." if a.height > b.height else "No.", x=a.colour, y=b.colour)
