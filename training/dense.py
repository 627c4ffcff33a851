"""The first stage's task: for every patch, what is there, its colour, and whether a thing has its middle there.

The answers are read from the rows that the decoder will get, so each row must say what its four patches hold. It must
also say where it lies, and which character of a word has its middle in it: the first, the second and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.lists import CHARACTERS, COLOUR_NAMES
from training.model import Shape
from training.paint import BAR, FIRST_CHARACTER, FIRST_DRAWING, FIRST_SHAPE, LONGEST, WHATS

OUTPUTS = WHATS + len(COLOUR_NAMES) + 1
LETTERS = len(CHARACTERS) + 1
FOUND_WEIGHT = 10.0  # most rows hold no second, third ... character
NOTHING_WEIGHT = 0.15  # most patches are empty
GROUPS = (("shape", FIRST_SHAPE, FIRST_DRAWING), ("drawing", FIRST_DRAWING, FIRST_CHARACTER),
          ("character", FIRST_CHARACTER, BAR))


@dataclass
class Labels:
    """What is where in a batch of pictures, as in `paint.Marks`."""

    what: Tensor
    colour: Tensor
    centre: Tensor
    letter: Tensor
    spelt: Tensor
    share: Tensor

    def to(self, device: torch.device) -> Labels:
        """The same on a device."""
        return Labels(*(getattr(self, field.name).to(device) for field in fields(self)))


class DenseHead(nn.Module):
    """A linear map from a row to the labels of its patches; used in training only."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm = nn.LayerNorm(shape.width)
        self.out = nn.Linear(shape.width, shape.pool**2 * OUTPUTS)
        self.place = nn.Linear(shape.width, 2 * (shape.grid // shape.pool))
        self.middle = nn.Linear(shape.width, 1)
        self.letter = nn.Linear(shape.width, shape.pool**2 * 2 * LETTERS)
        self.spelt = nn.Linear(shape.width, LONGEST * LETTERS)

    def forward(self, rows: Tensor) -> Tensor:
        """[pictures, rows, width] -> [pictures, grid, grid, OUTPUTS]."""
        return self._by_place(self.out(self.norm(rows)), 1)

    def _by_place(self, out: Tensor, parts: int) -> Tensor:
        """[pictures, rows, values] -> [pictures, grid, grid * parts, values of one], for patches cut in `parts`."""
        side, pool = self.shape.grid // self.shape.pool, self.shape.pool
        out = out.unflatten(-1, (pool, parts * pool, -1)).unflatten(1, (side, side))
        return out.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)

    def letter_loss(self, rows: Tensor, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """How badly rows say which characters they hold, by half patches and in the order of their words."""
        rows = self.norm(rows)
        halves = self._by_place(self.letter(rows).float(), 2)
        some = (labels.letter > 0) | (torch.rand(labels.letter.shape, device=rows.device) < NOTHING_WEIGHT)
        loss = fn.cross_entropy(halves[some], labels.letter[some].long(), reduction="sum") / max(1, int(some.sum()))
        there, letters = self.spelt(rows).float().unflatten(-1, (LONGEST, LETTERS)).split((1, LETTERS - 1), -1)
        share, spelt = labels.share.flatten(2).transpose(1, 2), labels.spelt.flatten(2).transpose(1, 2)
        found = fn.binary_cross_entropy_with_logits(there[..., 0], share)
        clear = share > 0.3
        named = fn.cross_entropy(letters[clear], spelt[clear].long(), reduction="sum") / max(1, int(clear.sum()))
        with torch.no_grad():
            logged = {"letter": share_of(halves.argmax(-1) == labels.letter, labels.letter > 0),
                      "spelt": share_of(letters.argmax(-1) == spelt, clear),
                      "order": share_of(there[..., 0] > 0, share > 0.6)}
        return loss + FOUND_WEIGHT * found + named, logged

    def place_loss(self, rows: Tensor) -> Tensor:
        """How badly rows say where they lie; a decoder could not tell it otherwise."""
        side = self.shape.grid // self.shape.pool
        down, across = self.place(self.norm(rows)).float().flatten(0, 1).split(side, -1)
        steps = torch.arange(side, device=rows.device)
        return fn.cross_entropy(down, steps.repeat_interleave(side).repeat(len(rows))) \
            + fn.cross_entropy(across, steps.repeat(side * len(rows)))

    def middle_loss(self, rows: Tensor, centre: Tensor) -> tuple[Tensor, float]:
        """How badly rows say how much of a middle they hold, and the share of pictures whose things they tell.

        Counting rests on it: a thing that lies in several rows must count as one.
        """
        pool = self.shape.pool
        there = centre.unflatten(2, (-1, pool)).unflatten(1, (-1, pool)).sum((2, 4)).flatten(1).clamp(max=1)
        said = self.middle(self.norm(rows))[..., 0].float()
        with torch.no_grad():
            right = (said.sigmoid().sum(1).round() == there.sum(1).round()).float().mean().item()
        return fn.binary_cross_entropy_with_logits(said, there), right


def share_of(right: Tensor, among: Tensor) -> float:
    """How many are right among some; zero where there are none."""
    return right[among].float().mean().item() if among.any() else 0.0


def dense_loss(out: Tensor, labels: Labels) -> tuple[Tensor, dict[str, float]]:
    """The loss and the share of right labels: of things, of colours where a thing is; how far middles are off."""
    what, colour, centre = out.float().split((WHATS, len(COLOUR_NAMES), 1), -1)
    weight = torch.ones(WHATS, device=out.device)
    weight[0] = NOTHING_WEIGHT
    loss_what = fn.cross_entropy(what.flatten(0, 2), labels.what.flatten().long(), weight)
    loss_colour = fn.cross_entropy(colour.flatten(0, 2), labels.colour.flatten().long(), ignore_index=-1)
    loss_centre = fn.binary_cross_entropy_with_logits(centre[..., 0], labels.centre)
    with torch.no_grad():
        thing = labels.what > 0
        named = thing & (labels.colour >= 0)
        right = {
            "what": (what.argmax(-1) == labels.what)[thing].float().mean().item(),
            **{name: share_of(what.argmax(-1) == labels.what, (labels.what >= first) & (labels.what < end))
               for name, first, end in GROUPS},
            "colour": (colour.argmax(-1) == labels.colour)[named].float().mean().item(),
            "centre": (centre[..., 0].sigmoid() - labels.centre).abs()[thing].float().mean().item(),
        }
    return loss_what + loss_colour + loss_centre, right
