"""Tiny random Qwen2-VL and Qwen2.5-VL, in transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_truth import SPECIAL, Truth, WithoutVideos, byte_tokenizer, enliven, look, write_mmproj

PATCH, MERGE, WIDTH, HEADS, LAYERS = 4, 2, 48, 4, 4
LEAST, MOST, WINDOW = 32 * 32, 160 * 160, 32  # pixels
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
SPECIALS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
START, PAD, END, VIDEO = range(SPECIAL, SPECIAL + 4)
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0,
    "eos_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
}  # fmt: skip
COMMON = {
    "depth": LAYERS, "num_heads": HEADS, "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2,
}  # fmt: skip
IDS = {
    "image_token_id": PAD, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
    "attn_implementation": "eager", "dtype": torch.float32,
}  # fmt: skip
RULES = (
    (r"visual\.patch_embed\.proj", "v.patch_embd"),
    (r"visual\.blocks\.(\d+)\.norm(\d)", r"v.blk.\1.ln\2"),
    (r"visual\.blocks\.(\d+)\.attn\.(q|k|v|qkv)", r"v.blk.\1.attn_\2"),
    (r"visual\.blocks\.(\d+)\.attn\.proj", r"v.blk.\1.attn_out"),
    (r"visual\.blocks\.(\d+)\.mlp\.(?:fc1|up_proj)", r"v.blk.\1.ffn_up"),
    (r"visual\.blocks\.(\d+)\.mlp\.(?:fc2|down_proj)", r"v.blk.\1.ffn_down"),
    (r"visual\.blocks\.(\d+)\.mlp\.gate_proj", r"v.blk.\1.ffn_gate"),
    (r"visual\.merger\.ln_q", "v.post_ln"),
    (r"visual\.merger\.mlp\.(\d)", r"mm.\1"),
)


def first_truth(seed: int = 0) -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(seed)
    vision = {**COMMON, "embed_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2}
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=TEXT, vision_config=vision, **IDS)).eval()
    enliven(model, seed)
    return model


def second_truth(seed: int = 0, window: int = WINDOW) -> Qwen2_5_VLForConditionalGeneration:
    """Layers 1 and 3 see the whole picture."""
    torch.manual_seed(seed)
    vision = {
        **COMMON, "hidden_size": WIDTH, "out_hidden_size": 64, "intermediate_size": 80, "window_size": window,
        "fullatt_block_indexes": [1, 3],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, **IDS)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path, model: PreTrainedModel, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    windows = "fullatt_block_indexes" in model.config.vision_config.to_dict()
    sizes = {
        "image_size": 560, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": 0,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-6, "image_min_pixels": LEAST, "image_max_pixels": MOST,
        **({"n_wa_pattern": 2, "window_size": WINDOW} if windows else {}),
    }  # fmt: skip
    known = {
        "clip.projector_type": "qwen2.5vl_merger" if windows else "qwen2vl_merger",
        **({"clip.use_silu": True} if windows else {}),
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        if name.startswith("v.patch_embd"):
            return [("v.patch_embd.weight", values[:, :, 0]), ("v.patch_embd.weight.1", values[:, :, 1])]
        if "attn_qkv" in name:
            return [(name.replace("qkv", part), rows) for part, rows in zip("qkv", np.split(values, 3), strict=True)]
        return [(name, values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


class StillProcessor(WithoutVideos, Qwen2VLProcessor):
    """Qwen2VLProcessor, of pictures."""


@cache
def processor() -> StillProcessor:
    pictures = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, size={"shortest_edge": LEAST, "longest_edge": MOST}, image_mean=MEAN,
        image_std=STD,
    )  # fmt: skip
    return StillProcessor(pictures, byte_tokenizer(SPECIALS, "<|vision_start|><|image_pad|><|vision_end|>"))


TURN = "<|vision_start|><|image_pad|><|vision_end|>"
TOWERS = {
    "qwen2vl": Truth("qwen2vl_merger", first_truth, write_tower, processor, TURN),
    "qwen2.5vl": Truth("qwen2.5vl_merger", second_truth, write_tower, processor, TURN),
}
FOREIGN = Foreign(
    architecture="qwen25vl",
    truth="qwen2.5vl",
    implied={
        **look([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        "clip.vision.image_min_pixels": None, "clip.vision.image_max_pixels": None,
    },
    same=("block_count", "embedding_length", "attention.head_count", "patch_size", "spatial_merge_size", "window_size",
          "attention.layer_norm_epsilon"),
    keys=lambda keys: {
        "rope.mrope_section": keys["qwen2vl.rope.dimension_sections"][:3], "vision.fullatt_block_indexes": [1, 3],
        "vision.num_channels": 3, "vision.temporal_patch_size": 2, "vision.spatial_patch_size": PATCH,
    },
    dropped=("rope.dimension_sections",),
    tensors=(
        (r"^v\.patch_embd\.weight\.1$", "v.patch_embd_1.weight"), (r"^v\.patch_embd\.weight$", "v.patch_embd_0.weight"),
        (r"^v\.post_ln", "v.merger.ln_q"), (r"^mm\.", "v.merger.mlp."),
    ),
)  # fmt: skip
