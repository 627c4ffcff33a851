"""A tiny random Gemma 3 with a tower, in transformers' class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from vision_truth import SIGLIP, SPECIAL, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, POOL, ROWS = 56, 7, 2, 16
SOFT = "<image_soft_token>"
RULES = (
    *((rf"vision_tower\.(?:vision_model\.)?{pattern}", name) for pattern, name in SIGLIP),
    (r"mm_input_projection_weight", "mm.input_projection.weight"),
    (r"mm_soft_emb_norm", "mm.soft_emb_norm"),
)
CONFIG = Gemma3Config(
    text_config={
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    },
    vision_config={
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False, "layer_norm_eps": 1e-6,
    },
    mm_tokens_per_image=16, image_token_id=SPECIAL + 3, boi_token_index=SPECIAL + 1,
    eoi_token_index=SPECIAL + 2, tie_word_embeddings=True,
    attn_implementation="eager", dtype=torch.float32,
)  # fmt: skip


def gemma3_truth(seed: int = 0) -> Gemma3ForConditionalGeneration:
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(CONFIG).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path,
    model: Gemma3ForConditionalGeneration,
    *,
    half: bool = False,
    exchanged: bool = False,
    pool: int = POOL,
    mean: float = 0.5,
    keys: Mapping[str, object] | None = None,
) -> Path:
    """`exchanged` names the parts of the feed-forward network as old converters did."""
    known = {
        "clip.projector_type": "gemma3", "clip.vision.projector.scale_factor": pool,
        **vision_keys(model.config.vision_config, 64), **look([mean] * 3, [0.5] * 3), **(keys or {}),
    }  # fmt: skip
    other = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}

    def change(name, values):
        new = re.sub("ffn_up|ffn_down", lambda found: other[found[0]], name) if exchanged else name
        return [(new, values + 1 if "soft_emb_norm" in name else values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


@cache
def processor() -> Gemma3Processor:
    specials = ["<pad>", "<start_of_image>", "<end_of_image>", SOFT]
    names = {"boi_token": specials[1], "eoi_token": specials[2], "image_token": SOFT}
    pictures = Gemma3ImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, image_seq_length=ROWS
    )
    return Gemma3Processor(pictures, byte_tokenizer(specials, "<start_of_image>", **names), image_seq_length=ROWS)


TOWERS = {"gemma3": Truth("gemma3", gemma3_truth, write_tower, processor, "<start_of_image>")}


def _ollama(keys: Mapping[str, object]) -> dict[str, object]:
    """With tokens that have no embeddings, and without what its first files left out."""
    more = {"tokens": ["<unused 0>", "<unused 1>"], "token_type": [1, 1], "scores": [0.0, 0.0]}
    lists = {name: keys[f"tokenizer.ggml.{name}"] for name in more if f"tokenizer.ggml.{name}" in keys}
    return {
        "mm.tokens_per_image": ROWS, "vision.num_channels": 3, "rope.global.freq_base": keys["gemma3.rope.freq_base"],
        "rope.local.freq_base": keys["gemma3.rope.freq_base_swa"],
        **{f"tokenizer.ggml.{name}": [*np.asarray(values).tolist(), *more[name]] for name, values in lists.items()},
    }  # fmt: skip


FOREIGN = Foreign(
    architecture="gemma3",
    truth="gemma3",
    same=("block_count", "embedding_length", "feed_forward_length", "image_size", "patch_size", "attention.head_count",
          "attention.layer_norm_epsilon"),
    keys=_ollama,
    dropped=("rope.freq_base", "rope.freq_base_swa", "attention.layer_norm_rms_epsilon"),
    tensors=(
        (r"^v\.patch_embd", "v.patch_embedding"), (r"^v\.position_embd", "v.position_embedding"),
        (r"^v\.post_ln", "v.post_layernorm"), (r"\.ln(\d)\.", r".layer_norm\1."), (r"\.attn_out\.", ".attn_output."),
        (r"\.ffn_up\.", ".mlp.fc1."), (r"\.ffn_down\.", ".mlp.fc2."), (r"^mm\.", "mm.mm_"),
    ),
)  # fmt: skip
