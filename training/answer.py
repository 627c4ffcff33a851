"""Greedy answers from the torch model, many questions at a time. Knows no test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.model import Nano, prepare
from training.text import END_OF_TURN, EOS, PAD, blocks_of, decode, render


@dataclass
class Query:
    """Pictures, the turns so far and a last question."""

    pictures: list[np.ndarray]  # uint8 [192, 192, 3] each
    question: str
    before: list[tuple[str, str]]
    lines: bool = False


def encode_pictures(model: Nano, pictures: list[np.ndarray], size: int = 32) -> list[Tensor]:
    """The rows of every picture, [rows, width] each."""
    found: list[Tensor] = []
    device = next(model.parameters()).device
    for at in range(0, len(pictures), size):
        pixels = torch.from_numpy(np.stack(pictures[at:at + size])).to(device)
        found += model.encode(prepare(pixels)).unbind(0)
    return found


def answer_batch(model: Nano, queries: list[Query], limit: int) -> list[list[int]]:
    """Greedy ids for each query, without the end mark."""
    device = next(model.parameters()).device
    encoded = iter(encode_pictures(model, [picture for query in queries for picture in query.pictures]))
    rows = [[next(encoded) for _ in query.pictures] for query in queries]
    full = [render([*query.before, (query.question, None)], len(query.pictures), model.shape.rows,
                   lines=query.lines)[0] for query in queries]
    said: list[list[int]] = [[] for _ in queries]
    open_ = list(range(len(queries)))
    for _ in range(limit):
        width = max(len(full[i]) for i in open_)
        ids = torch.tensor([full[i] + [PAD] * (width - len(full[i])) for i in open_], device=device)
        blocks = torch.tensor([blocks_of(full[i]) + [0] * (width - len(full[i])) for i in open_], device=device)
        hidden = model(ids, blocks, torch.cat([row for i in open_ for row in rows[i]]))
        last = torch.tensor([len(full[i]) - 1 for i in open_], device=device)
        best = model.logits(hidden[torch.arange(len(open_), device=device), last]).argmax(-1).tolist()
        for index, token in zip(list(open_), best, strict=True):
            if token in (END_OF_TURN, EOS):
                open_.remove(index)
            else:
                said[index].append(token)
                full[index].append(token)
        if not open_:
            break
    return said


@torch.inference_mode()
def answer(model: Nano, queries: list[Query], *, limit: int = 24, size: int = 64) -> list[str]:
    """Greedy answers, in the order of the queries."""
    order = sorted(range(len(queries)), key=lambda i: (len(queries[i].pictures), len(queries[i].question)))
    found = [""] * len(queries)
    for at in range(0, len(order), size):
        part = order[at:at + size]
        for index, ids in zip(part, answer_batch(model, [queries[i] for i in part], limit), strict=True):
            found[index] = decode(ids).strip()
    return found
