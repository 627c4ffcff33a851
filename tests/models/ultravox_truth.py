"""A tiny random Ultravox: transformers' encoder of Whisper, projector and padding as fixie-ai's code has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sound_truth import (
    BANDS,
    TEXT_WIDTH,
    TOWER,
    WIDTH,
    WINDOW,
    SoundTruth,
    enliven,
    extractor,
    states,
    tower_keys,
    whisper_encoder,
    write_mmproj,
)
from torch import nn

HIDDEN, STACKED, HOP = 40, 5, 160
NAMES = (
    *((rf"audio_tower\.{pattern}", name) for pattern, name in TOWER),
    (r"multi_modal_projector\.ln_pre", "mm.a.norm_pre"),
    (r"multi_modal_projector\.linear_1", "mm.a.mlp.1"),
    (r"multi_modal_projector\.ln_mid", "mm.a.norm_mid"),
    (r"multi_modal_projector\.linear_2", "mm.a.mlp.2"),
)


class Projector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_pre = nn.RMSNorm(WIDTH * STACKED, eps=1e-6)
        self.linear_1 = nn.Linear(WIDTH * STACKED, HIDDEN, bias=False)
        self.ln_mid = nn.RMSNorm(HIDDEN // 2, eps=1e-6)
        self.linear_2 = nn.Linear(HIDDEN // 2, TEXT_WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, (0, 0, 0, -len(x) % STACKED))
        value, gate = self.linear_1(self.ln_pre(x.reshape(-1, WIDTH * STACKED))).chunk(2, dim=-1)
        return self.linear_2(self.ln_mid(nn.functional.silu(gate) * value))


class Ultravox(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.audio_tower, self.multi_modal_projector = whisper_encoder(), Projector()


def ultravox_truth() -> Ultravox:
    model = Ultravox().eval()
    enliven(model)
    return model


def embed(model: Ultravox, samples: np.ndarray) -> np.ndarray:
    """Windows of a sound, the last one filled with frames of nothing, which no row looks at."""
    samples = np.pad(samples, (0, max(0, 2 * HOP - len(samples))))
    made = extractor(BANDS)(
        samples, sampling_rate=16_000, padding="longest", pad_to_multiple_of=HOP, truncation=False,
        return_attention_mask=True, return_tensors="pt",
    )  # fmt: skip
    mel, frames = made.input_features[0], int(made.attention_mask.sum())
    rows = []
    for first in range(0, frames, WINDOW):
        window, count = mel[:, first : first + WINDOW], min(WINDOW, frames - first)
        if first:
            window = nn.functional.pad(window, (0, WINDOW - window.shape[1]))
        valid, tokens = (count - 1) // 2 + 1, -(-count // (2 * STACKED))
        heard = states(model.audio_tower, window, valid)
        rows.append(model.multi_modal_projector(heard[:valid])[:tokens])
    return torch.cat(rows).numpy()


def write_tower(path: Path, model: Ultravox, *, keys: dict[str, object] | None = None, **options: object) -> Path:
    told = {**tower_keys("ultravox", TEXT_WIDTH, **{"projector.stack_factor": STACKED}), **(keys or {})}
    return write_mmproj(path, told, model, NAMES, **options)


SOUNDS = {
    "ultravox": SoundTruth(
        "ultravox", ultravox_truth, embed, write_tower, "<|audio|>", ("a.blk.1.ln1.weight", "a.blk.1.ln2.weight")
    )
}
