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
    rows = torch.cat(encode_pictures(model, [picture for query in queries for picture in query.pictures]))
    prompts = [render([*query.before, (query.question, None)], len(query.pictures), model.shape.rows,
                      lines=query.lines)[0] for query in queries]
    said: list[list[int]] = [[] for _ in queries]
    open_ = list(range(len(queries)))
    longest = max(map(len, prompts))
    for step in range(limit):
        width = longest + step
        full = [prompt + said_ for prompt, said_ in zip(prompts, said, strict=True)]
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in full], device=device)
        blocks = torch.tensor([blocks_of(row) + [0] * (width - len(row)) for row in full], device=device)
        hidden = model(ids, blocks, rows)
        last = torch.tensor([len(row) - 1 for row in full], device=device)
        best = model.logits(hidden[torch.arange(len(full), device=device), last]).argmax(-1).tolist()
        for index in list(open_):
            if best[index] in (END_OF_TURN, EOS):
                open_.remove(index)
            else:
                said[index].append(best[index])
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
