"""Endless batches for training, made in worker processes; sample number N is always the same sample.

Knows how samples are laid out in tensors; knows nothing of the model.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.assets import load_assets
from training.dense import Labels
from training.named import Names, names_of
from training.pictures import KINDS, Picture, choose_kind, draw_picture
from training.questions import Turn
from training.scenes import Scene, Style
from training.spell import Read, read_of
from training.text import PAD, blocks_of


@dataclass
class Talks:
    """A conversation about each picture, or pair of pictures, of a batch."""

    ids: Tensor  # [conversations, rows]
    blocks: Tensor  # [conversations, rows], 0 text, n the n-th picture
    learn: Tensor  # [conversations, rows], true where the row is part of an answer
    names: Names
    read: Read


def stack_talks(rendered: list[tuple[list[int], list[bool]]], scenes: list[list[Scene]],
                turns: list[list[Turn]]) -> Talks:
    """Conversations padded to the longest; `scenes` are those that each is about, `turns` what was asked."""
    longest = max(len(ids) for ids, _ in rendered)

    def padded(rows: list[list[int]], dtype: torch.dtype, fill: int) -> Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], dtype=dtype)

    return Talks(padded([ids for ids, _ in rendered], torch.long, PAD),
                 padded([blocks_of(ids) for ids, _ in rendered], torch.long, 0),
                 padded([[int(x) for x in learn] for _, learn in rendered], torch.bool, 0),
                 names_of(rendered, scenes), read_of(rendered, turns))


@dataclass
class Batch:
    """Pictures with labels; in the later stages also conversations about them, in as many sets as the stage wants."""

    pixels: Tensor  # uint8 [pictures, side, side, 3]
    labels: Labels
    talks: list[Talks] = field(default_factory=list)


def stack_pictures(pictures: list[Picture]) -> tuple[Tensor, Labels]:
    """Pixels and labels as tensors."""
    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    labels = Labels(*(stack([getattr(p.marks, part.name) for p in pictures]) for part in fields(Labels)))
    return stack([p.pixels for p in pictures]), labels


class PictureStream(IterableDataset[Batch]):
    """Batches of pictures with their labels a patch."""

    kinds = KINDS

    def __init__(self, *, seed: str, start: int, size: int, with_assets: bool, sets: int = 1) -> None:
        """`start` is the number of the first batch; `size` the pictures in a batch; `sets` of talks about them."""
        super().__init__()
        self.sets = sets
        self.seed, self.start, self.size, self.with_assets = seed, start, size, with_assets

    def style(self) -> Style:
        """What training may draw with."""
        return Style("train", load_assets("train") if self.with_assets else None)

    def draw(self, rng: random.Random, style: Style) -> Picture:
        """One picture."""
        return draw_picture(rng, style, choose_kind(rng, style, self.kinds))

    def make(self, number: int) -> Batch:
        """Batch `number`."""
        rng, style = random.Random(f"{self.seed}-{number}"), self.style()
        return Batch(*stack_pictures([self.draw(rng, style) for _ in range(self.size)]))

    def __iter__(self) -> Iterator[Batch]:
        """Every worker makes its share of the batches, in order."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.start + first
        while True:
            yield self.make(number)
            number += step


def ignore_signals(worker: int) -> None:
    """A worker ends with its parent, not when the whole group is asked to end: the parent still needs it to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def open_stream(dataset: PictureStream, workers: int) -> Iterator[Batch]:
    """Batches in order, made ahead by worker processes."""
    ahead = 4 if workers else None
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=ahead,
                           worker_init_fn=ignore_signals))
