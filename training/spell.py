"""Reading as a task for attention: who is about to say a character looks at the row that holds it.

In training two heads of one block, one of each group so that their values differ, are shown where every character of an
answer stands in the picture. Knows the decoder's rows, no question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from training.lists import CHARACTERS
from training.model import Decoder
from training.paint import CELLS, share_cells
from training.questions import Turn
from training.tally import look, on_rows
from training.text import load_tokens


@dataclass
class Read:
    """Characters in a batch's answers that are read from a picture."""

    at: Tensor  # [characters, 2]: conversation, the row before the character, which is to say it
    cells: Tensor  # [characters, rows of a picture]: where it stands, in shares that add up to one


@cache
def characters() -> frozenset[int]:
    """The tokens of single characters."""
    return frozenset(number for number, token in enumerate(load_tokens()) if token and token in CHARACTERS)


def answers_of(learn: list[bool]) -> list[range]:
    """The rows of every answer."""
    edges = np.flatnonzero(np.diff(np.array([False, *learn, False]).astype(np.int8)))
    return [range(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def read_of(rendered: list[tuple[list[int], list[bool]]], turns: list[list[Turn]]) -> Read:
    """All characters that are read in a batch, from the first picture of each conversation."""
    at, cells = [], []
    for number, ((ids, learn), asked) in enumerate(zip(rendered, turns, strict=True)):
        for rows, turn in zip(answers_of(learn), asked, strict=True):
            said = [row for row in rows if ids[row] in characters()] if turn.spots else []
            for row, spot in zip(said, turn.spots, strict=True):
                at.append((number, row - 1))
                cells.append(share_cells(*spot).ravel())
    return Read(torch.tensor(at, dtype=torch.long).view(-1, 2),
                torch.from_numpy(np.array(cells, np.float32)).view(-1, CELLS**2))


def block_of(decoder: Decoder) -> int:
    """The block that reads: the one before the last third."""
    return decoder.middle


def read_loss(decoder: Decoder, before: Tensor, read: Read, blocks: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How far those who read look from where they should; logs the share of their weight that lies there."""
    if not len(read.at):
        return before.new_zeros((), dtype=torch.float32), {}
    target = on_rows(read.cells, read.at[:, 0], blocks, 1)
    with torch.autocast(before.device.type, enabled=False):
        seen = look(decoder, block_of(decoder), before.float(), read.at)
    seen = seen[:, ::decoder.shape.heads // decoder.shape.groups]
    away = fn.kl_div(seen.clamp(min=-60), target[:, None].expand_as(seen), reduction="batchmean") / seen.shape[1]
    return away, {"read": (seen.exp() * (target > 0.2)[:, None]).sum(-1).mean().item()}
