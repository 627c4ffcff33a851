"""A tiny random LLaVA 1.5, in transformers' class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from vision_truth import SIGLIP, SPECIAL, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, LAYERS = 48, 6, 4
ROWS = (SIDE // PATCH) ** 2
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
RULES = (
    *((rf"vision_tower\.(?:vision_model\.)?{pattern}", name) for pattern, name in SIGLIP),
    (r"multi_modal_projector\.linear_1", "mm.0"),
    (r"multi_modal_projector\.linear_2", "mm.2"),
)
TEXT = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
    "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
CONFIG = LlavaConfig(
    text_config=TEXT,
    vision_config=CLIPVisionConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=LAYERS, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH, layer_norm_eps=1e-5, projection_dim=32,
    ),
    image_token_index=SPECIAL, vision_feature_layer=-2, vision_feature_select_strategy="default",
    attn_implementation="eager", dtype=torch.float32,
)  # fmt: skip
OTHER = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}


def llava_truth(seed: int = 0) -> LlavaForConditionalGeneration:
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(CONFIG).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path,
    model: LlavaForConditionalGeneration,
    *,
    half: bool = False,
    old: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:
    """`old`: as the first converters wrote it, with fewer layers, which nothing counts, and other names."""
    known = {
        "clip.projector_type": "mlp", "clip.vision.feature_layer": [LAYERS - 1],
        **vision_keys(model.config.vision_config, 64, None), **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip
    if old:
        known["clip.vision.block_count"] = LAYERS - 1
        known["clip.vision.projection_dim"] = 32  # CLIP's own
        del known["clip.projector_type"], known["clip.vision.feature_layer"]
        known |= {"clip.has_text_encoder": False, "clip.has_llava_projector": True}

    def change(name, values):
        if "post_ln" in name or (old and f"v.blk.{LAYERS - 1}." in name):
            return []
        return [(re.sub("ffn_up|ffn_down", lambda found: OTHER[found[0]], name) if old else name, values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


@cache
def processor() -> LlavaProcessor:
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        pictures, byte_tokenizer(["<image>"], "<image>"), patch_size=PATCH, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip


LLAVA = Truth("mlp", llava_truth, write_tower, processor, "<image>")
TOWERS = {"llava": LLAVA}
OTHERS = {
    "llava that pads": replace(LLAVA, options={"keys": {"clip.vision.image_aspect_ratio": "pad"}}),
    "llava of old": replace(LLAVA, projector="", options={"old": True}),
}
