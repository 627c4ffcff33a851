"""Tiny random LLaVA-NeXTs in transformers' class, and how a LLaVA-OneVision is made beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from llava_truth import MEAN, OTHER, STD, TEXT
from llava_truth import RULES as PROJECTOR
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    PreTrainedModel,
    SiglipVisionConfig,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from vision_truth import SPECIAL, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, GRID, LAYERS = 30, 6, 5, 4  # of CLIP's tower
WIDE_SIDE = 32  # of SigLIP's, whose patches leave a margin
TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # down and across
MANY = [(down, across) for down in (1, 2, 3) for across in (1, 2, 3)]
LIST = [1, 3, 4]  # states of Granite Vision's kind
RULES = (*PROJECTOR, (r"image_newline", "v.image_newline"))
_TOWER = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "patch_size": PATCH,
}  # fmt: skip
_CLIP = CLIPVisionConfig(**_TOWER, image_size=SIDE, layer_norm_eps=1e-5, projection_dim=32)
SIGLIP = SiglipVisionConfig(**_TOWER, image_size=WIDE_SIDE, layer_norm_eps=1e-6, vision_use_head=False)
COMMON = {"image_token_index": SPECIAL, "attn_implementation": "eager", "dtype": torch.float32}


def pinpoints(tiles, side) -> list[list[int]]:
    return [[down * side, across * side] for down, across in tiles]


def text_config(text: str) -> dict[str, object]:
    told = {**TEXT, "model_type": text}
    own = {"mistral": {"sliding_window": None}, "qwen2": {"head_dim": 16}}
    return told | own.get(text, {})


def next_config(text: str) -> LlavaNextConfig:
    return LlavaNextConfig(
        text_config=text_config(text), vision_config=_CLIP, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_grid_pinpoints=pinpoints(TILES, SIDE), **COMMON,
    )  # fmt: skip


def lists_config() -> LlavaNextConfig:
    """SigLIP's tower with states of several layers, as Granite Vision has it."""
    return LlavaNextConfig(
        text_config=text_config("llama"), vision_config=SIGLIP, vision_feature_layer=LIST,
        vision_feature_select_strategy="full", image_grid_pinpoints=pinpoints(MANY, WIDE_SIDE), **COMMON,
    )  # fmt: skip


def make(kind: type[PreTrainedModel], config: object, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = kind(config).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path,
    model: PreTrainedModel,
    *,
    half: bool = False,
    old: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:
    """`old`: as the first converters wrote it, with fewer layers, which nothing counts, other names, and fewer keys."""
    config, vision = model.config, model.config.vision_config
    one = isinstance(config, LlavaOnevisionConfig)
    taken = np.atleast_1d(config.vision_feature_layer)
    known = {
        "clip.projector_type": "mlp",
        "clip.vision.feature_layer": np.int32([n if n > 0 else LAYERS + 1 + n for n in taken]),
        "clip.vision.image_grid_pinpoints": np.int32(config.image_grid_pinpoints).reshape(-1),
        "clip.vision.mm_patch_merge_type": "spatial_unpad",
        "clip.vision.image_aspect_ratio": config.vision_aspect_ratio if one else "anyres",
        **vision_keys(vision, 64, None if isinstance(vision, CLIPVisionConfig) else "gelu"),
        **look(MEAN, STD),
    }  # fmt: skip
    if old:
        known["clip.vision.block_count"] = LAYERS - 1
        known["clip.vision.projection_dim"] = 32  # CLIP's own
        for key in ("projector_type", "vision.feature_layer", "vision.image_grid_pinpoints",
                    "vision.mm_patch_merge_type", "vision.image_aspect_ratio"):  # fmt: skip
            del known[f"clip.{key}"]
        known |= {"clip.has_text_encoder": False, "clip.has_llava_projector": True}

    def change(name, values):
        if "post_ln" in name or (old and f"v.blk.{LAYERS - 1}." in name):
            return []
        if old:
            name = re.sub("ffn_up|ffn_down", lambda found: OTHER[found[0]], name).replace("v.image", "model.image")
        return [(name, values)]

    return write_mmproj(path, known | dict(keys or {}), model.state_dict(), RULES, half=half, change=change)


def look_of(tiles, side) -> dict[str, object]:
    return {"image_mean": MEAN, "image_std": STD, "image_grid_pinpoints": pinpoints(tiles, side)}


@cache
def next_processor(side: int = SIDE, strategy: str = "default") -> LlavaNextProcessor:
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side},
        **look_of(TILES if side == SIDE else MANY, side),
    )  # fmt: skip
    return LlavaNextProcessor(
        pictures, byte_tokenizer(["<image>"], "<image>"), patch_size=PATCH, vision_feature_select_strategy=strategy,
        image_token="<image>", num_additional_image_tokens=1 if strategy == "default" else 0,
    )  # fmt: skip


def _next(text: str) -> Truth:
    made = partial(make, LlavaNextForConditionalGeneration, next_config(text))
    return Truth("mlp", made, write_tower, next_processor, "<image>")


TOWERS = {
    "llava next of mistral": _next("mistral"),
    "llava next of qwen2": _next("qwen2"),
    "llava next of vicuna": Truth(
        "mlp", partial(make, LlavaNextForConditionalGeneration, lists_config()), write_tower,
        partial(next_processor, WIDE_SIDE, "full"), "<image>",
    ),
}  # fmt: skip
OTHERS = {"llava next of old": replace(TOWERS["llava next of mistral"], projector="", options={"old": True})}
