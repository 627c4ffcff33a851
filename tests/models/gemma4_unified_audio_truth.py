"""A tiny random Gemma 4 12B that hears, in transformers' class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gemma4_unified_truth import TEXT_SETTINGS, VISION
from sound_truth import TEXT_WIDTH, SoundTruth, enliven, tower_keys, write_mmproj
from transformers import Gemma4UnifiedAudioFeatureExtractor, Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration
from vision_truth import SPECIAL

from opsin.models import gemma4_unified_audio

ROW = 80  # samples
NAMES = ((r"model\.embed_audio\.embedding_projection", "mm.a.input_projection"),)


def gemma4_unified_audio_truth() -> Gemma4UnifiedForConditionalGeneration:
    config = Gemma4UnifiedConfig(
        text_config=TEXT_SETTINGS, vision_config=VISION, audio_config={"audio_embed_dim": ROW}, audio_token_id=SPECIAL,
        boa_token_id=SPECIAL + 1, eoa_token_index=SPECIAL + 2, image_token_id=SPECIAL + 3, boi_token_id=SPECIAL + 4,
        eoi_token_id=SPECIAL + 5, video_token_id=SPECIAL + 6, tie_word_embeddings=True, attn_implementation="eager",
        dtype=torch.float32,
    )  # fmt: skip
    model = Gemma4UnifiedForConditionalGeneration(config).eval()
    enliven(model)
    return model


def heard(samples: np.ndarray) -> dict[str, torch.Tensor]:
    extractor = Gemma4UnifiedAudioFeatureExtractor(feature_size=ROW, audio_samples_per_token=ROW)
    made = extractor([samples], return_tensors="pt")
    return {"input_features": made.input_features, "input_features_mask": made.input_features_mask}


def logits(model: Gemma4UnifiedForConditionalGeneration, ids: list[int], samples: np.ndarray) -> np.ndarray:
    return model(input_ids=torch.tensor([ids]), use_cache=False, **heard(samples)).logits[0].numpy()


def embed(model: Gemma4UnifiedForConditionalGeneration, samples: np.ndarray) -> np.ndarray:
    return model.model.get_audio_features(**heard(samples)).pooler_output[0].numpy()


def write_tower(
    path: Path, model: Gemma4UnifiedForConditionalGeneration, *, keys: dict[str, object] | None = None,
    **options: object,
) -> Path:  # fmt: skip
    none = dict.fromkeys(("feed_forward_length", "block_count", "attention.head_count"), 0)
    told = {**tower_keys("gemma4ua", TEXT_WIDTH, embedding_length=ROW, **none), **(keys or {})}
    told["clip.audio.projector_type"] = told.pop("clip.projector_type")
    return write_mmproj(path, told, model, NAMES, **options)


SOUNDS = {
    "gemma4_unified_audio": SoundTruth(
        "gemma4ua", gemma4_unified_audio_truth, embed, write_tower, "<|audio|>", None, (("<|audio>",), ("<audio|>",)),
        gemma4_unified_audio_truth, logits, (1 / 16_000, 0.005, 0.0051, 0.73, 3.76), None,
        {"another epsilon": (gemma4_unified_audio, "EPS", lambda right: 1e-2)}, ("<|image>", "<image|>"),
    )
}  # fmt: skip
