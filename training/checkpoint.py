"""Keeps a run: weights, their running average, optimiser, place in the recipe. Knows no task.

A full checkpoint lies in the run's folder. A small one (the average in bfloat16, split so that no file is large) can
be committed and continued from with a fresh optimiser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SMALL = Path(__file__).parent / "checkpoint"


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


def save_small(weights: dict[str, Tensor], facts: dict[str, object], folder: Path = SMALL) -> None:
    """Write weights in bfloat16 and what is needed to go on from them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()},
              folder / "weights.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def load_small(folder: Path = SMALL) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Weights in float32 and the facts beside them."""
    weights = {name: tensor.float() for name, tensor in load_file(folder / "weights.safetensors").items()}
    facts: dict[str, object] = json.loads((folder / "facts.json").read_text())
    return weights, facts
