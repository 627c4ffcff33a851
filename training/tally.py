"""Counting as a task for attention: a name looks at every row that holds the middle of one of its things.

Attention gives averages, and an average does not say of how many. It does beside a constant: with a fixed weight on the
first token of all, what is left for the things grows with their number. In training two heads of one block are shown
where to look, the first in the first picture, the second in the second. Knows the decoder's rows, no question.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as fn

from training.model import Decoder, rotate, rotation
from training.named import Names

CONSTANT = 4.0  # as many things as the first token weighs: so eight and nine are told apart too


def block_of(decoder: Decoder) -> int:
    """The block that counts: one before those whose rows `named` reads."""
    return max(0, decoder.middle - 1)


def on_rows(shares: Tensor, number: Tensor, blocks: Tensor, picture: int) -> Tensor:
    """Shares [n, rows of a picture] laid on the rows [n, rows] of the conversations `number` that hold the picture."""
    shares, number = shares.to(blocks.device), number.to(blocks.device)
    rows = (blocks == picture).int().argmax(1)[number, None] + torch.arange(shares.shape[1], device=blocks.device)
    return torch.zeros(len(number), blocks.shape[1], device=blocks.device).scatter_(1, rows, shares)


def wanted(names: Names, blocks: Tensor, picture: int) -> Tensor:
    """Where names should look in a picture, counted from 1: [names, rows], each adding up to one."""
    target = on_rows(names.centres[:, picture - 1], names.at[:, 0], blocks, picture)
    target[:, 0] = CONSTANT
    return target / target.sum(1, keepdim=True)


def look(decoder: Decoder, block: int, before: Tensor, at: Tensor) -> Tensor:
    """Logarithms of the weights [n, heads, rows] by which rows look in a block with a window.

    `before` are the rows before the block, `at` [n, 2] those that look: conversation, row.
    """
    layer, shape = decoder.layers[block], decoder.shape
    attention, rows = layer.self_attn, layer.input_layernorm(before)
    at = at.to(before.device)
    number, row = at.unbind(1)
    positions = torch.arange(rows.shape[1], device=rows.device)
    cos, sin = rotation(positions, shape.head, shape.base_local)
    keys = attention.k_norm(attention.k_proj(rows).unflatten(-1, (-1, shape.head))).transpose(1, 2)
    keys = rotate(keys.float(), (cos, sin)).repeat_interleave(shape.heads // shape.groups, 1)
    asked = attention.q_norm(attention.q_proj(rows[number, row]).unflatten(-1, (-1, shape.head)))
    asked = rotate(asked.float(), (cos[row, None], sin[row, None])) * shape.head**-0.5
    slot = slots_of(number)
    most = int(slot.max()) + 1 if len(slot) else 0
    lined = asked.new_zeros(len(rows), most, *asked.shape[1:]).index_put((number, slot), asked)
    scores = (lined.transpose(1, 2) @ keys.transpose(2, 3)).transpose(1, 2)[number, slot]
    return torch.log_softmax(scores.masked_fill(positions > row[:, None, None], -torch.inf), -1)


def slots_of(number: Tensor) -> Tensor:
    """Each entry's place among those of its conversation, whose numbers rise: keys are then used in place."""
    counts = torch.bincount(number)
    return torch.arange(len(number), device=number.device) - (counts.cumsum(0) - counts)[number]


def tally_loss(decoder: Decoder, before: Tensor, names: Names, blocks: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How far names look from where they should, and how far their numbers, read from it, are off.

    The divergence hardly tells eight from nine, so the logarithm of the number counts by itself. Logs the share of
    numbers that are right.
    """
    with torch.autocast(before.device.type, enabled=False):
        seen = look(decoder, block_of(decoder), before.float(), names.at)
    total, logged = seen.new_zeros(()), {"look": 0.0, "off": 0.0, "tally": 0.0}
    for picture in range(1, min(2, decoder.shape.heads) + 1):
        target, there = wanted(names, blocks, picture), (blocks == picture).any(1)[names.at[:, 0].to(blocks.device)]
        if not there.any():
            continue
        target, weights = target[there], seen[there, picture - 1].clamp(min=-60)
        away = fn.kl_div(weights, target, reduction="batchmean")
        read, right = (number(share) for share in (weights[:, 0].exp(), target[:, 0]))
        some = right > 0.5
        off = ((read[some] + 0.1).log() - (right[some] + 0.1).log()).abs().sum() / max(1, int(some.sum()))
        total = total + away + off
        if picture == 1:
            logged = {"look": away.item(), "off": off.item(),
                      "tally": (read.round() == right.round())[some].float().mean().item()}
    return total, logged


def number(share: Tensor) -> Tensor:
    """How many things there are when the first token has this share."""
    return CONSTANT / share.clamp(min=1e-4) - CONSTANT
