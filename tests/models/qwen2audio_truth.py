"""A tiny random Qwen2-Audio, in transformers' classes; its windows are shorter than 30 seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sound_truth import (
    BANDS,
    FFN,
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
from torch import nn
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from transformers.models.qwen2_audio.configuration_qwen2_audio import Qwen2AudioEncoderConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder
from vision_truth import SPECIAL

SAMPLES = WINDOW * 160
NAMES = (*((rf"audio_tower\.{pattern}", name) for pattern, name in TOWER), (r"linear", "mm.a.fc"))


class Qwen2AudioTruth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        settings = Qwen2AudioEncoderConfig(
            d_model=WIDTH, num_mel_bins=BANDS, max_source_positions=ROWS, encoder_layers=LAYERS,
            encoder_attention_heads=HEADS, encoder_ffn_dim=FFN, dropout=0.0,
        )  # fmt: skip
        settings._attn_implementation = "eager"
        self.audio_tower, self.linear = Qwen2AudioEncoder(settings), nn.Linear(WIDTH, TEXT_WIDTH)


def whole() -> Qwen2AudioForConditionalGeneration:
    audio = {
        "model_type": "qwen2_audio_encoder", "d_model": WIDTH, "num_mel_bins": BANDS, "max_source_positions": ROWS,
        "encoder_layers": LAYERS, "encoder_attention_heads": HEADS, "encoder_ffn_dim": FFN, "dropout": 0.0,
    }  # fmt: skip
    config = Qwen2AudioConfig(
        audio_config=audio, text_config={"model_type": "qwen2", **TEXT}, audio_token_index=SPECIAL,
        attn_implementation="eager",
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config).eval()
    enliven(model)
    return model


def logits(model: Qwen2AudioForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    """Of one sound of less than a window."""
    made = extractor(BANDS)(
        np.pad(samples, (0, SAMPLES - len(samples))), sampling_rate=16_000, padding="longest", return_tensors="pt"
    )
    mask = torch.arange(WINDOW)[None] < -(-len(samples) // 160)
    given = torch.tensor([ids])
    return model(
        input_ids=given, attention_mask=torch.ones_like(given), input_features=made.input_features,
        feature_attention_mask=mask.long(), use_cache=False,
    ).logits[0].numpy()  # fmt: skip


def qwen2audio_truth() -> Qwen2AudioTruth:
    model = Qwen2AudioTruth().eval()
    enliven(model)
    return model


def embed(model: Qwen2AudioTruth, samples: np.ndarray) -> np.ndarray:
    """Windows one by one, each filled up with silence, which no row looks at."""
    rows = []
    for first in range(0, len(samples), SAMPLES):
        heard = samples[first : first + SAMPLES]
        frames = torch.tensor(max(3, -(-len(heard) // 160)))
        made = extractor(BANDS)(
            np.pad(heard, (0, SAMPLES - len(heard))), sampling_rate=16_000, padding="longest", return_tensors="pt"
        )
        valid, count = (int(number) for number in model.audio_tower._get_feat_extract_output_lengths(frames))
        mask = torch.zeros(1, 1, ROWS, ROWS)
        mask[..., valid:] = torch.finfo(torch.float32).min
        states = model.audio_tower(made.input_features, attention_mask=mask).last_hidden_state
        rows.append(model.linear(states[0, :count]))
    return torch.cat(rows).numpy()


def write_tower(
    path: Path, model: Qwen2AudioTruth, *, keys: dict[str, object] | None = None, **options: object
) -> Path:
    return write_mmproj(path, {**tower_keys("qwen2a", TEXT_WIDTH), **(keys or {})}, model, NAMES, **options)


SOUNDS = {
    "qwen2audio": SoundTruth(
        "qwen2a", qwen2audio_truth, embed, write_tower, "<|audio_bos|><|AUDIO|><|audio_eos|>",
        ("a.blk.1.ln1.weight", "a.post_ln.weight"), (("<|audio_bos|>",), ("<|audio_eos|>",)), whole, logits,
    )
}  # fmt: skip
