"""A tiny random Qwen3-ASR, in transformers' classes; its chunks and windows are as long as those of real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sound_truth import (
    BANDS,
    FFN,
    HEADS,
    LAYERS,
    TEXT,
    TEXT_WIDTH,
    TOWER,
    WIDTH,
    SoundTruth,
    enliven,
    tower_keys,
    write_mmproj,
)
from transformers import Qwen3ASRConfig, Qwen3ASRFeatureExtractor, Qwen3ASRForConditionalGeneration
from vision_truth import SPECIAL

from opsin.models import qwen3asr
from opsin.nn import convolution

CHANNELS = 12
NAMES = (
    *((rf"model\.audio_tower\.{pattern}", name) for pattern, name in TOWER if pattern != "layer_norm"),
    (r"model\.audio_tower\.conv2d(\d)", r"a.conv2d.\1"),
    (r"model\.audio_tower\.conv_out", "a.conv_out"),
    (r"model\.audio_tower\.ln_post", "a.post_ln"),
    (r"model\.multi_modal_projector\.linear_(\d)", r"mm.a.mlp.\1"),
)
# Less than half a second, a row more than that, chunks, windows and what is near.
SECONDS = (0.2, 0.5, 0.583, 1.0, 1.4567, 8.0, 8.015, 17.31)


def qwen3asr_truth() -> Qwen3ASRForConditionalGeneration:
    audio = {
        "model_type": "qwen3_asr_encoder", "d_model": WIDTH, "num_mel_bins": BANDS, "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS, "encoder_ffn_dim": FFN, "downsample_hidden_size": CHANNELS,
        "output_dim": TEXT_WIDTH,
    }  # fmt: skip
    config = Qwen3ASRConfig(
        audio_config=audio, text_config={"model_type": "qwen3", **TEXT}, audio_token_id=SPECIAL, pad_token_id=2,
        eos_token_id=1, attn_implementation="eager",
    )  # fmt: skip
    model = Qwen3ASRForConditionalGeneration(config).eval()
    enliven(model)
    return model


def heard(samples: np.ndarray) -> dict[str, torch.Tensor]:
    extractor = Qwen3ASRFeatureExtractor(feature_size=BANDS)
    made = extractor(samples, sampling_rate=16_000, padding=True, return_attention_mask=True)
    return {"input_features": made.input_features, "input_features_mask": made.attention_mask}


def logits(model: Qwen3ASRForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    return model(input_ids=torch.tensor([ids]), use_cache=False, **heard(samples)).logits[0].numpy()


def embed(model: Qwen3ASRForConditionalGeneration, samples: np.ndarray) -> np.ndarray:
    return model.get_audio_features(**heard(samples)).pooler_output.numpy()


def write_tower(
    path: Path, model: Qwen3ASRForConditionalGeneration, *, keys: dict[str, object] | None = None, **options: object
) -> Path:
    """As llama.cpp writes it: the table of places is longer than a chunk."""
    turns = np.arange(1500)[:, None] / 10000 ** (np.arange(WIDTH // 2) / (WIDTH // 2 - 1))
    table = np.concatenate([np.sin(turns), np.cos(turns)], axis=1).astype(np.float32)
    told = {**tower_keys("qwen3a", TEXT_WIDTH), **(keys or {})}
    told["clip.audio.projector_type"] = told.pop("clip.projector_type")
    return write_mmproj(path, told, model, NAMES, more={"a.position_embd.weight": table}, **options)


def one_place_on(right):
    return lambda planes, size: (np.roll(right(planes, size)[0], -9), right(planes, size)[1])


SOUNDS = {
    "qwen3asr": SoundTruth(
        "qwen3a", qwen3asr_truth, embed, write_tower, "<|audio_start|><|audio_pad|><|audio_end|>",
        ("a.blk.1.ln1.weight", "a.post_ln.weight"), (("<|audio_start|>",), ("<|audio_end|>",)), qwen3asr_truth, logits,
        SECONDS,
        mistakes={
            "a window of a chunk less": (qwen3asr, "WINDOW", lambda right: right - qwen3asr.CHUNK),
            "each place sees what the next one sees": (convolution, "_around", one_place_on),
        },
    )
}  # fmt: skip
