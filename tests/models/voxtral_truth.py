"""A tiny random Voxtral, in transformers' classes; its windows are shorter than 30 seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sound_truth import (
    BANDS,
    HEADS,
    LAYERS,
    ROWS,
    TEXT,
    TEXT_WIDTH,
    TOWER,
    WIDTH,
    WINDOW,
    SoundTruth,
    enliven,
    extractor,
    tower_keys,
    write_mmproj,
)
from transformers import VoxtralConfig, VoxtralForConditionalGeneration
from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder, VoxtralMultiModalProjector
from vision_truth import SPECIAL

STACKED = 4
NAMES = (
    *((rf"audio_tower\.{pattern}", name) for pattern, name in TOWER),
    (r"projector\.linear_1", "mm.a.mlp.1"),
    (r"projector\.linear_2", "mm.a.mlp.2"),
)


class VoxtralTruth(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = VoxtralConfig(
            audio_config={
                "hidden_size": WIDTH, "intermediate_size": STACKED * WIDTH, "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS, "num_mel_bins": BANDS, "max_source_positions": ROWS,
            },
            text_config={"model_type": "llama", "hidden_size": TEXT_WIDTH},
        )  # fmt: skip
        config.audio_config._attn_implementation = "eager"
        self.audio_tower, self.projector = VoxtralEncoder(config.audio_config), VoxtralMultiModalProjector(config)


def whole() -> VoxtralForConditionalGeneration:
    audio = {
        "hidden_size": WIDTH, "intermediate_size": STACKED * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_mel_bins": BANDS, "max_source_positions": ROWS,
    }  # fmt: skip
    config = VoxtralConfig(
        audio_config=audio, text_config={"model_type": "llama", **TEXT}, audio_token_id=SPECIAL,
        attn_implementation="eager",
    )  # fmt: skip
    model = VoxtralForConditionalGeneration(config).eval()
    enliven(model)
    return model


def logits(model: VoxtralForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    given = torch.tensor([ids])
    made = model(input_ids=given, input_features=windows(samples), use_cache=False)
    return made.logits[0].numpy()


def voxtral_truth() -> VoxtralTruth:
    model = VoxtralTruth().eval()
    enliven(model)
    return model


def embed(model: VoxtralTruth, samples: np.ndarray) -> np.ndarray:
    states = model.audio_tower(windows(samples)).last_hidden_state
    return model.projector(states.reshape(-1, STACKED * WIDTH)).numpy()


def windows(samples: np.ndarray) -> torch.Tensor:
    """All windows [windows, bands, frames] of a sound that is filled up with silence."""
    mel = extractor(BANDS)(
        samples, sampling_rate=16_000, padding=True, truncation=False, pad_to_multiple_of=WINDOW * 160,
        return_tensors="pt",
    ).input_features  # fmt: skip
    return mel.reshape(BANDS, -1, WINDOW).transpose(0, 1)


def write_tower(path: Path, model: VoxtralTruth, *, keys: dict[str, object] | None = None, **options: object) -> Path:
    more = {"projector.stack_factor": STACKED, "feed_forward_length": STACKED * WIDTH}
    told = tower_keys("voxtral", TEXT_WIDTH, **more)
    return write_mmproj(path, {**told, **(keys or {})}, model, NAMES, **options)


SOUNDS = {
    "voxtral": SoundTruth(
        "voxtral", voxtral_truth, embed, write_tower, "[BEGIN_AUDIO][AUDIO]",
        ("a.blk.1.ln1.weight", "a.post_ln.weight"), (("[BEGIN_AUDIO]",), ()), whole, logits,
    )
}  # fmt: skip
