"""A tiny random Idefics3, in transformers' class; SmolVLM's is the same under another name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from vision_truth import SIGLIP, SPECIAL, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, FOLD, LONGEST = 48, 6, 2, 192
ROWS = (SIDE // PATCH // FOLD) ** 2
MARKS = [f"<row_{row + 1}_col_{column + 1}>" for row in range(4) for column in range(4)]
SPECIALS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *MARKS]
RULES = (
    *((rf"vision_model\.{pattern}", name) for pattern, name in SIGLIP),
    (r"connector\.modality_projection\.proj", "mm.model.fc"),
)
CONFIG = Idefics3Config(
    text_config={
        "model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
        "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
    },
    vision_config={
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
    },
    scale_factor=FOLD, image_token_id=SPECIAL, pad_token_id=2, tie_word_embeddings=False,
    attn_implementation="eager", dtype=torch.float32,
)  # fmt: skip


def idefics3_truth(seed: int = 0) -> Idefics3ForConditionalGeneration:
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(CONFIG).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path, model: Idefics3ForConditionalGeneration, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    known = {
        "clip.projector_type": "idefics3", "clip.vision.projector.scale_factor": FOLD,
        "clip.vision.preproc_image_size": LONGEST, **vision_keys(model.config.vision_config, 64),
        **look([0.5] * 3, [0.5] * 3), **(keys or {}),
    }  # fmt: skip
    return write_mmproj(path, known, model.state_dict(), RULES, half=half)


@cache
def processor() -> Idefics3Processor:
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": LONGEST}, max_image_size={"longest_edge": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return Idefics3Processor(pictures, byte_tokenizer(SPECIALS, "<image>"), image_seq_len=ROWS)


TOWERS = {"idefics3": Truth("idefics3", idefics3_truth, write_tower, processor, "<image>")}
