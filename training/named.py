"""What the names in a question stand for, as a task of its own: how many there are, where, which colour and shape.

The answer to a question is one word; the things that it names could teach far more. In training a linear map reads
these facts from the decoder's middle, at the word that ends a name. Knows scenes and tokens; thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.lists import COLOUR_NAMES, EMOJI_NAMES, NUMBERS, SHAPES, plural
from training.model import Shape
from training.paint import PATCH, SIDE, share_middle
from training.scenes import Scene, Thing
from training.text import byte_letters, load_tokens

MOST = len(NUMBERS)  # counts from here on are one class
BINS = SIDE // PATCH
ROWS = Shape().grid // Shape().pool  # of a picture, along a side
PARTS = (MOST + 1, MOST + 1, BINS, BINS, len(COLOUR_NAMES), len(SHAPES))
UNKNOWN = -1


@dataclass
class Names:
    """Names in a batch's questions."""

    at: Tensor  # [names, 2]: conversation, row
    centres: Tensor  # [names, 2, rows of a picture]: how many have their middle there, in each picture
    facts: Tensor  # [names, parts]: how many in the first and second picture, across, down, colour, shape


@cache
def words() -> tuple[dict[int, str], dict[int, str], int, int]:
    """Tokens that are colours, tokens that are names, and those of "thing" and "things"."""
    space, ids = byte_letters()[32], {token: number for number, token in enumerate(load_tokens())}
    colours = {ids[space + name]: name for name in COLOUR_NAMES}
    names = {ids[space + form]: name for name in (*SHAPES, *EMOJI_NAMES) for form in (name, plural(name))}
    return colours, names, ids[space + "thing"], ids[space + "things"]


def find(ids: list[int], learn: list[bool]) -> list[tuple[int, str, str]]:
    """(row, colour, name) of every name in the questions; either may be empty, both are for all things."""
    colours, names, one, several = words()
    found = []
    for row in range(1, len(ids) - 1):
        token, colour = ids[row], colours.get(ids[row - 1], "")
        if learn[row]:
            continue
        if token in names:
            found.append((row, colour, names[token]))
        elif token == several or (token == one and colour):
            found.append((row, colour, ""))
        elif token in colours and ids[row + 1] not in names and ids[row + 1] not in (one, several):
            found.append((row, colours[token], ""))
    return found


def groups_of(colour: str, name: str, scenes: list[Scene]) -> list[list[Thing]]:
    """The things that a name stands for, in every picture."""
    return [[t for t in scene.things if (not colour or t.colour == colour) and (not name or t.name == name)]
            for scene in scenes]


def facts_of(groups: list[list[Thing]]) -> list[int]:
    """The labels of a name; place, colour and shape only where one picture shows it once."""
    counts = [min(len(group), MOST) for group in groups] + [UNKNOWN] * (2 - len(groups))
    if len(groups) > 1 or len(groups[0]) != 1:
        return counts + [UNKNOWN] * 4
    thing = groups[0][0]
    return [*counts, min(thing.x // PATCH, BINS - 1), min(thing.y // PATCH, BINS - 1),
            COLOUR_NAMES.index(thing.colour) if thing.colour else UNKNOWN,
            SHAPES.index(thing.name) if thing.name in SHAPES else UNKNOWN]


def centres_of(groups: list[list[Thing]]) -> np.ndarray:
    """How many middles each row of the two pictures holds, in shares: [2, rows]."""
    found = np.zeros((2, BINS, BINS), np.float32)
    for picture, group in enumerate(groups):
        for thing in group:
            found[picture] += share_middle(thing.x, thing.y)
    return found.reshape(2, ROWS, BINS // ROWS, ROWS, BINS // ROWS).sum((2, 4)).reshape(2, ROWS**2)


def names_of(rendered: list[tuple[list[int], list[bool]]], scenes: list[list[Scene]]) -> Names:
    """All names of a batch. Charts and words have bars and letters instead, and nothing is said of those."""
    at, centres, facts = [], [], []
    for number, ((ids, learn), seen) in enumerate(zip(rendered, scenes, strict=True)):
        if any(scene.bars or scene.text for scene in seen):
            continue
        for row, colour, name in find(ids, learn):
            groups = groups_of(colour, name, seen)
            at.append((number, row))
            centres.append(centres_of(groups))
            facts.append(facts_of(groups))
    shares = torch.from_numpy(np.array(centres, np.float32)).view(-1, 2, ROWS**2)
    return Names(torch.tensor(at, dtype=torch.long).view(-1, 2), shares, torch.tensor(facts).view(-1, len(PARTS)))


class NamedHead(nn.Module):
    """A linear map from a row of the decoder's middle to the facts."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width)
        self.out = nn.Linear(shape.width, sum(PARTS))

    def forward(self, middle: Tensor, names: Names) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the shares of right counts, places and colours."""
        at, facts = names.at.to(middle.device), names.facts.to(middle.device)
        parts = self.out(self.norm(middle[at[:, 0], at[:, 1]])).float().split(PARTS, -1)
        total = middle.new_zeros((), dtype=torch.float32)
        right = []
        for part, fact in zip(parts, facts.unbind(-1), strict=True):
            known = fact != UNKNOWN
            if known.any():
                total = total + fn.cross_entropy(part, fact, ignore_index=UNKNOWN)
            right.append((part.argmax(-1) == fact)[known].float().mean().item() if known.any() else 0.0)
        return total, {"named": total.item(), "many": right[0], "place": (right[2] + right[3]) / 2, "hue": right[4]}
