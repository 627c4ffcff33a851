"""A tiny random PaddleOCR-VL, in transformers' class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration, PaddleOCRVLProcessor
from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil
from vision_truth import SIGLIP, SPECIAL, Floats, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, MERGE, LEAST, MOST = 30, 4, 2, 24 * 24, 120 * 120
FRAMES = 1  # in which the processor counts pixels
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
SPECIALS = ["<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"]
TURN = "".join(SPECIALS)
RULES = (
    *((rf"visual\.vision_model\.{pattern}", name) for pattern, name in SIGLIP),
    (r"projector\.pre_norm", "mm.input_norm"), (r"projector\.linear_(\d)", r"mm.\1"),
)  # fmt: skip


def make(seed: int = 0) -> PaddleOCRVLForConditionalGeneration:
    torch.manual_seed(seed)
    text = {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
        "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "spatial_merge_size": MERGE,
    }  # fmt: skip
    config = PaddleOCRVLConfig(
        text_config=text, vision_config=vision, image_token_id=SPECIAL + 1, video_token_id=SPECIAL + 3,
        vision_start_token_id=SPECIAL, vision_end_token_id=SPECIAL + 2, attn_implementation="eager",
        dtype=torch.float32,
    )  # fmt: skip
    model = PaddleOCRVLForConditionalGeneration(config).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path, model: PaddleOCRVLForConditionalGeneration, *, half: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    known = {
        "clip.projector_type": "paddleocr", **vision_keys(model.config.vision_config, 64), **look(MEAN, STD),
        "clip.vision.image_min_pixels": LEAST, "clip.vision.image_max_pixels": MOST, **(keys or {}),
    }  # fmt: skip
    return write_mmproj(path, known, model.state_dict(), RULES, half=half)


@cache
def processor() -> PaddleOCRVLProcessor:
    pictures = PaddleOCRVLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, size={"shortest_edge": LEAST, "longest_edge": MOST}, image_mean=MEAN,
        image_std=STD,
    )  # fmt: skip
    return PaddleOCRVLProcessor(pictures, byte_tokenizer(SPECIALS, TURN, image_token=SPECIALS[1]))


def as_ours(patches: Floats, grid: NDArray[np.int64]) -> Floats:
    """transformers' patches, which stand row by row, as ours."""
    _, high, wide = grid
    squares = patches.reshape(high // MERGE, MERGE, wide // MERGE, MERGE, -1).swapaxes(1, 2)
    return np.ascontiguousarray(squares).reshape(high, wide, -1)


TOWERS = {"paddleocr": Truth("paddleocr", make, write_tower, processor, TURN)}
