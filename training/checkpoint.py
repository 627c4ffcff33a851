"""Keeps a run: weights, their running average, optimiser, place in the recipe. Knows no task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass
class Place:
    """Where a run stands: the stage, steps done in it, batches drawn in all, seconds of training."""

    stage: str
    step: int = 0
    batches: int = 0
    seconds: float = 0.0


class Average:
    """The running average of the weights, which is what gets measured and shipped."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.updates = 0

    def update(self, model: nn.Module) -> None:
        """Move towards the model: quickly at first, then by five thousandths a step."""
        self.updates += 1
        share = max(0.005, 6 / (self.updates + 10))
        for name, tensor in model.state_dict().items():
            self.tensors[name].lerp_(tensor, share)


def save_full(path: Path, parts: dict[str, object]) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(parts, part)
    part.replace(path)


def load_full(path: Path) -> dict[str, object]:
    """Read a checkpoint that this module wrote."""
    loaded: dict[str, object] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded
