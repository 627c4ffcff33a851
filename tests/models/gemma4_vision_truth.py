"""Tiny random Gemma 4 with a tower, in transformers' class: one whose pictures' rows see each other, one whose do not.

The first has bounds around each matrix of the tower and statistics behind it, the other shares keys and has embeddings
of layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4Processor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from vision_truth import SPECIAL, Truth, WithoutVideos, byte_tokenizer, enliven, look, write_mmproj

PATCH, POOL, WIDTH, HEADS, HEAD, LAYERS, FFN, SIDE = 4, 3, 48, 4, 16, 3, 80, 4000
TOKENS = 70  # a picture
SPECIALS = ["<pad>", "<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"]
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "sliding_window": 24,
    "layer_types": [f"{'full' if i in (1, 2, 5) else 'sliding'}_attention" for i in range(6)],
    "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "final_logit_softcapping": 12.0, "vocab_size_per_layer_input": 300,
}  # fmt: skip
SEEING = {"use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0, "attention_k_eq_v": True,
          "num_global_key_value_heads": 1}  # fmt: skip
SHARING = {"hidden_size_per_layer_input": 16, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
RULES = (
    (r"vision_tower\.patch_embedder\.input_proj", "v.patch_embd"),
    (r"vision_tower\.patch_embedder\.position_embedding_table", "v.position_embd.weight"),
    (r"vision_tower\.std_(bias|scale)", r"v.std_\1"),
    (r"encoder\.layers\.(\d+)\.input_layernorm", r"v.blk.\1.ln1"),
    (r"encoder\.layers\.(\d+)\.post_attention_layernorm", r"v.blk.\1.attn_post_norm"),
    (r"encoder\.layers\.(\d+)\.pre_feedforward_layernorm", r"v.blk.\1.ln2"),
    (r"encoder\.layers\.(\d+)\.post_feedforward_layernorm", r"v.blk.\1.ffn_post_norm"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qk])_norm", r"v.blk.\1.attn_\2_norm"),
    (r"encoder\.layers\.(\d+)\.self_attn\.o_proj\.linear", r"v.blk.\1.attn_out"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.linear", r"v.blk.\1.attn_\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.(\w+)_proj\.linear", r"v.blk.\1.ffn_\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.o_proj\.(input|output)_(min|max)", r"v.blk.\1.attn_out.\2_\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(input|output)_(min|max)", r"v.blk.\1.attn_\2.\3_\4"),
    (r"encoder\.layers\.(\d+)\.mlp\.(\w+)_proj\.(input|output)_(min|max)", r"v.blk.\1.ffn_\2.\3_\4"),
    (r"embed_vision\.embedding_projection", "mm.input_projection"),
)


def _make(text: Mapping[str, object], seed: int, *, bounded: bool) -> Gemma4ForConditionalGeneration:
    torch.manual_seed(seed)
    vision = {
        "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "head_dim": HEAD, "patch_size": PATCH, "pooling_kernel_size": POOL,
        "position_embedding_size": SIDE, "use_clipped_linears": bounded, "standardize": bounded,
    }  # fmt: skip
    config = Gemma4Config(
        text_config={**TEXT, **text}, vision_config=vision, audio_config=None, image_token_id=SPECIAL + 3,
        boi_token_id=SPECIAL + 1, eoi_token_id=SPECIAL + 2, boa_token_id=SPECIAL + 4, eoa_token_index=SPECIAL + 5,
        audio_token_id=SPECIAL + 6, video_token_id=SPECIAL + 7, tie_word_embeddings=True,
        attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = Gemma4ForConditionalGeneration(config).eval()
    enliven(model, seed)
    random = torch.Generator().manual_seed(seed)
    ranges = {"layer_scalar": (0.6, 1.4), "_min": (-1.6, -0.8), "_max": (0.8, 1.6), "std_bias": (-9.0, 9.0),
              "std_scale": (0.05, 0.2)}  # fmt: skip
    with torch.no_grad():
        for name, values in model.named_buffers():
            for end, bounds in ranges.items():
                if name.endswith(end):
                    values.uniform_(*bounds, generator=random)
    return model


def seeing_truth(seed: int = 0) -> Gemma4ForConditionalGeneration:
    return _make(SEEING, seed, bounded=True)


def sharing_truth(seed: int = 0) -> Gemma4ForConditionalGeneration:
    return _make(SHARING, seed, bounded=False)


def write_tower(
    path: Path, model: Gemma4ForConditionalGeneration, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    sees = model.config.text_config.use_bidirectional_attention == "vision"
    known = {
        "image_size": 224, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": FFN,
        "block_count": LAYERS, "attention.head_count": HEADS, "attention.head_dim": HEAD, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-6, "projector.scale_factor": POOL,
        "image_max_pixels": TOKENS * (PATCH * POOL) ** 2, **({} if sees else {"bidirectional": False}),
    }  # fmt: skip
    whole = {
        "clip.projector_type": "gemma4v", **{f"clip.vision.{key}": value for key, value in known.items()},
        **look([0.0] * 3, [1.0] * 3), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        if name == "v.patch_embd.weight":
            side = math.isqrt(values.shape[1] // 3)
            values = values.reshape(-1, side, side, 3).transpose(0, 3, 1, 2)
        return [(name, np.atleast_1d(values))]

    whole = {key: value for key, value in whole.items() if value is not None}
    return write_mmproj(path, whole, model.state_dict(), RULES, half=half, change=change)


class StillProcessor(WithoutVideos, Gemma4Processor):
    """Gemma4Processor, of pictures."""


@cache
def processor() -> StillProcessor:
    named = {"boi_token": 1, "eoi_token": 2, "image_token": 3, "boa_token": 4, "eoa_token": 5, "audio_token": 6}
    tokenizer = byte_tokenizer(SPECIALS, "<|image|>", **{name: SPECIALS[i] for name, i in named.items()})
    tokenizer.pad_token = SPECIALS[0]
    pictures = Gemma4ImageProcessorPil(patch_size=PATCH, max_soft_tokens=TOKENS, pooling_kernel_size=POOL)
    return StillProcessor(None, pictures, tokenizer, None)


TOWERS = {
    "gemma4_vision": Truth("gemma4v", seeing_truth, write_tower, processor, "<|image|>"),
    "gemma4_vision without sight ahead": Truth("gemma4v", sharing_truth, write_tower, processor, "<|image|>"),
}
FOREIGN = Foreign(
    architecture="gemma4",
    truth="gemma4_vision",
    implied={"clip.vision.image_max_pixels": None},
    same=("block_count", "embedding_length", "feed_forward_length", "patch_size", "attention.head_count",
          "attention.head_dim", "attention.layer_norm_epsilon", "projector.scale_factor"),
    keys=lambda keys: {"vision.num_channels": 3},
    tensors=(),
)  # fmt: skip
