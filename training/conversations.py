"""Whole conversations: one or two pictures, and questions about them one after the other.

Knows which questions suit which picture and how often each is asked; knows no model.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from training import questions as q
from training.lists import COLOUR_NAMES, NUMBERS, SHAPES, article, plural
from training.model import Shape
from training.pages import draw_page
from training.paint import Canvas
from training.pictures import EVERYTHING, GROUPS, KINDS, MOSTLY_THINGS, THINGS_FIRST, Picture, choose_kind, draw_picture
from training.questions import Asker, Turn, ask
from training.scenes import Scene, Style, choose_background, choose_kinds, paint_things, wear
from training.stream import Batch, PictureStream, Talks, stack_pictures, stack_talks
from training.text import render

ROWS = Shape().rows
PAIR_SHARE = 0.12
Askers = dict[str, list[tuple[float, Asker]]]
ASKERS: Askers = {
    "things": [(2, q.ask_colour), (2, q.ask_shape), (3, q.ask_count), (2, q.ask_place), (2, q.ask_relation),
               (1.5, q.ask_extreme), (1.5, q.ask_at), (2.5, q.ask_exists), (0.5, q.ask_background),
               (1.5, q.ask_describe), (0.1, q.ask_text), (0.1, q.ask_extreme_bar)],
    "drawings": [(3, q.ask_drawing), (1.5, q.ask_count), (2, q.ask_place), (1, q.ask_relation), (2, q.ask_extreme),
                 (2, q.ask_at), (2, q.ask_exists), (0.3, q.ask_background), (2, q.ask_describe), (0.1, q.ask_text)],
    "text": [(5, q.ask_text), (2, q.ask_letters), (1, q.ask_text_colour), (0.5, q.ask_background),
             (0.3, q.ask_describe), (0.4, q.ask_exists)],
    "chart": [(4, q.ask_extreme_bar), (3, q.ask_bar), (0.3, q.ask_describe), (0.3, q.ask_exists)],
}


def ask_most(scene: Scene, rng: random.Random) -> Turn | None:
    """How many there are of the commonest shape or drawing."""
    (name, size), *_ = Counter(plural(t.name) for t in scene.things).most_common(1) or [("", 0)]
    return ask(rng, "count", f"{NUMBERS[size]}.", x=name) if 0 < size <= 9 else None


# What a decoder is asked that finds things and knows their places: counting above all.
LATER = ASKERS | {
    "things": [(1.5, q.ask_colour), (1.5, q.ask_shape), (3, q.ask_count), (2.5, ask_most), (1.5, q.ask_place),
               (1.5, q.ask_relation), (2, q.ask_extreme), (2, q.ask_at), (2, q.ask_exists), (0.3, q.ask_background),
               (2, q.ask_describe), (0.1, q.ask_text), (0.1, q.ask_extreme_bar)]}

# The same while counting is the lesson: half of all questions.
COUNTING = LATER | {
    "things": [(1, q.ask_colour), (1, q.ask_shape), (3, q.ask_count), (7, ask_most), (1, q.ask_place),
               (1.2, q.ask_relation), (1.2, q.ask_extreme), (1.2, q.ask_at), (2, q.ask_exists), (0.3, q.ask_background),
               (1, q.ask_describe), (0.1, q.ask_text), (0.1, q.ask_extreme_bar)]}


@dataclass
class Conversation:
    """Pictures and what is said about them."""

    pictures: list[Picture]
    turns: list[Turn]


def kind_of(scene: Scene) -> str:
    """The list of askers that suits a scene."""
    if scene.text:
        return "text"
    if scene.bars:
        return "chart"
    return "things" if any(t.colour for t in scene.things) else "drawings"


def ask_about(scene: Scene, rng: random.Random, count: int, asked: Askers = ASKERS) -> list[Turn]:
    """Up to `count` different questions about a scene."""
    weights, askers = zip(*asked[kind_of(scene)], strict=True)
    turns: list[Turn] = []
    for asker in rng.choices(askers, weights, k=count * 3):
        turn = asker(scene, rng)
        if turn is None or any(turn.question == other.question for other in turns):
            continue
        turns.append(turn)
        if turn.kind == "exists" and not turn.absent and rng.random() < 0.3:
            turns += follow(scene, rng, turn)
        if len(turns) >= count:
            break
    return turns[:count]


def follow(scene: Scene, rng: random.Random, turn: Turn) -> list[Turn]:
    """A question about "it" after a question that named a thing."""
    for name, thing in q.unique_names(scene):
        if turn.question.rstrip("?").endswith((f" {article(name)}", f" {article(name)} in the picture")):
            place = q.place_of(thing)
            if thing.colour and name == thing.name and rng.random() < 0.5:
                return [ask(rng, "it", f"{thing.colour}.")]
            return [ask(rng, "it place", f"{place}.")] if place else []
    return []


def change_kinds(rng: random.Random, kinds: list[tuple[str, str]], background: str) -> list[tuple[str, str]]:
    """The same things but for one fact: a colour, a shape, or how many."""
    kinds, index = list(kinds), rng.randrange(len(kinds))
    name, colour = kinds[index]
    choice = rng.random()
    if choice < 0.3:
        kinds[index] = (name, rng.choice([c for c in COLOUR_NAMES if c not in (background, colour)]))
    elif choice < 0.6:
        kinds[index] = (rng.choice([s for s in SHAPES if s != name]), colour)
    elif choice < 0.8 and len(kinds) > 1:
        kinds.pop(index)
    elif len(kinds) < 10:
        kinds.append(kinds[index])
    return kinds


def picture_of(rng: random.Random, painted: tuple[Scene, Canvas]) -> Picture:
    """A worn picture of a painted scene."""
    scene, canvas = painted
    return Picture(wear(rng, canvas.pixels()), scene, canvas.marks)


def draw_pair(rng: random.Random, style: Style) -> list[Picture]:
    """Two scenes: related ones that differ in one fact or in a number, or two of their own."""
    background = choose_background(rng)
    first = choose_kinds(rng, background, drawings=False)
    choice = rng.random()
    if choice < 0.35:
        second = change_kinds(rng, first, background)
    elif choice < 0.85:
        group = rng.choice(first)
        second = [group] * rng.randint(1, 7)
        second += [kind for kind in choose_kinds(rng, background, drawings=False)[:3] if kind[0] != group[0]]
    else:
        second = choose_kinds(rng, background, drawings=False)
    both = [first, second[:10]]
    if rng.random() < 0.5:
        both.reverse()
    return [picture_of(rng, paint_things(rng, style, background, kinds)) for kinds in both]


def groups_of(scene: Scene) -> Counter[str]:
    """How many there are of each name, in the plural, with and without its colour."""
    groups: Counter[str] = Counter()
    for thing in scene.things:
        groups.update((plural(thing.name), f"{thing.colour} {plural(thing.name)}", f"{thing.colour} things"))
    return groups


def ask_more(first: Scene, second: Scene, rng: random.Random) -> Turn:
    """Which picture has more of something."""
    a, b = groups_of(first), groups_of(second)
    a["things"], b["things"] = len(first.things), len(second.things)
    by_answer: dict[str, list[str]] = {"The first.": [], "The second.": [], "Both the same.": []}
    for name in sorted({*a, *b}):
        by_answer["The first." if a[name] > b[name] else
                  "The second." if a[name] < b[name] else "Both the same."].append(name)
    answer = rng.choice([answer for answer, names in by_answer.items() if names])
    return ask(rng, "more", answer, x=rng.choice(by_answer[answer]))


def ask_which(first: Scene, second: Scene, rng: random.Random) -> Turn | None:
    """Which picture has something that the other lacks."""
    names = [{q.full_name(t) for t in s.things} | {t.name for t in s.things} for s in (first, second)]
    only = [sorted(names[0] - names[1]), sorted(names[1] - names[0])]
    index = rng.choice([i for i in (0, 1) if only[i]] or [-1])
    if index < 0:
        return None
    return ask(rng, "which", ("The first.", "The second.")[index], x=article(rng.choice(only[index])))


def ask_in_one(scenes: list[Scene], rng: random.Random) -> Turn | None:
    """An ordinary question about one picture of two."""
    index = rng.randrange(2)
    turn = rng.choice((q.ask_colour, q.ask_shape, q.ask_count, q.ask_exists))(scenes[index], rng)
    if turn is None or "picture" in turn.question:
        return None
    words = f" in the {('first', 'second')[index]} picture"
    return Turn(f"{turn.kind} in one", turn.question[:-1] + words + turn.question[-1], turn.answer, turn.absent)


def ask_about_pair(scenes: list[Scene], rng: random.Random, count: int) -> list[Turn]:
    """Up to `count` questions about two pictures."""
    turns: list[Turn] = []
    for _ in range(count * 3):
        choice = rng.random()
        turn = ask_more(*scenes, rng) if choice < 0.45 else \
            ask_which(*scenes, rng) if choice < 0.75 else ask_in_one(scenes, rng)
        if turn is not None and all(turn.question != other.question for other in turns):
            turns.append(turn)
        if len(turns) == count:
            break
    return turns


def show(rng: random.Random, style: Style, kinds: dict[str, float], pairs: float) -> list[Picture]:
    """What a conversation is about: one picture, or two."""
    return draw_pair(rng, style) if rng.random() < pairs else [draw_picture(rng, style, choose_kind(rng, style, kinds))]


def talk(rng: random.Random, pictures: list[Picture], asked: Askers = ASKERS) -> list[Turn]:
    """As many turns as the pictures are good for: they are cheaper than pictures."""
    if len(pictures) > 1:
        return ask_about_pair([p.scene for p in pictures], rng, 5)
    most = {"text": 4, "chart": 5}.get(kind_of(pictures[0].scene), 7)
    return ask_about(pictures[0].scene, rng, most, asked)


def converse(rng: random.Random, style: Style, kinds: dict[str, float] = KINDS,
             pairs: float = PAIR_SHARE, asked: Askers = ASKERS) -> Conversation:
    """A conversation for training."""
    while True:
        pictures = show(rng, style, kinds, pairs)
        if turns := talk(rng, pictures, asked):
            return Conversation(pictures, turns)


def rough(rng: random.Random, question: str) -> str:
    """The question as people sometimes type it: without capital, without mark."""
    if rng.random() < 0.06:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.") if rng.random() < 0.06 else question


class ConversationStream(PictureStream):
    """Batches of conversations, with the labels of their pictures."""

    pairs, asked = PAIR_SHARE, ASKERS
    beside = 0  # pages beside the pictures of a batch

    def make(self, number: int) -> Batch:
        """Batch `number`: pictures, and the sets of conversations about them."""
        rng, style = random.Random(f"{self.seed}-talk-{number}"), self.style()
        first = [converse(rng, style, self.kinds, self.pairs, self.asked) for _ in range(self.size)]
        sets = [first, *([Conversation(c.pictures, talk(rng, c.pictures, self.asked) or c.turns) for c in first]
                         for _ in range(self.sets - 1))]
        pages = [draw_page(rng, style) for _ in range(self.beside if style.assets else 0)]
        return Batch(*stack_pictures([picture for c in first for picture in c.pictures] + pages),
                     [self.render(rng, talks) for talks in sets])

    def render(self, rng: random.Random, talks: list[Conversation]) -> Talks:
        """Conversations as rows."""
        rendered = [render([(rough(rng, t.question), t.answer) for t in talk.turns], len(talk.pictures), ROWS,
                           lines=rng.random() < 0.5) for talk in talks]
        return stack_talks(rendered, [[p.scene for p in talk.pictures] for talk in talks], [t.turns for t in talks])


class ThingsFirstStream(ConversationStream):
    """Mostly scenes of shapes, which is what the model promises to see; words, drawings and charts come later."""

    kinds = THINGS_FIRST


class MostlyThingsStream(ConversationStream):
    """Scenes of any number of things, counted more often, and some of all else."""

    kinds, pairs, asked = MOSTLY_THINGS, 0.15, LATER


class CountingStream(ConversationStream):
    """Mostly groups of one to nine, which every number equally often is the answer to, and some of all else."""

    kinds, pairs, asked = GROUPS, 0.08, COUNTING


class ReadingStream(ConversationStream):
    """All kinds of pictures, words more often than others; things are counted as often as before."""

    kinds, pairs, asked = EVERYTHING, 0.06, COUNTING


class EverythingStream(ReadingStream):
    """The same, and beside them pages that nothing is asked about, for the tower."""

    beside = 8
