"""A tiny random Gemma 4 without a tower, in transformers' class, with the masks of Gemma 4's.

The class itself lets a picture's rows see each other in all layers, and past the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from gemma4_vision_truth import SEEING, SPECIALS, TEXT, StillProcessor
from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.modeling_gemma4 import (
    create_masks_for_vision_model,
    get_block_sequence_ids_for_mask,
)
from vision_truth import SPECIAL, Floats, Truth, byte_tokenizer, enliven, look, write_mmproj

PATCH, POOL, WIDTH, TOKENS, SIDE = 2, 3, 48, 70, 1200
SQUARE = PATCH * POOL
_LEFT = ("hidden_size_per_layer_input", "vocab_size_per_layer_input")
TEXT_SETTINGS = {key: value for key, value in {**TEXT, **SEEING}.items() if key not in _LEFT}
VISION = {"patch_size": PATCH, "pooling_kernel_size": POOL, "mm_embed_dim": WIDTH, "mm_posemb_size": SIDE,
          "output_proj_dims": WIDTH}  # fmt: skip
RULES = (
    (r"embed_vision\.patch_ln(\d)", r"v.patch_norm.\1"), (r"embed_vision\.pos_norm", "v.patch_norm.3"),
    (r"embed_vision\.patch_dense", "v.patch_embd"), (r"embed_vision\.pos_embedding", "v.position_embd.weight"),
    (r"embed_vision\.multimodal_embedder\.embedding_projection", "mm.input_projection"),
)  # fmt: skip


def make(seed: int = 0) -> Gemma4UnifiedForConditionalGeneration:
    torch.manual_seed(seed)
    config = Gemma4UnifiedConfig(
        text_config=TEXT_SETTINGS, vision_config=VISION, audio_config=None, image_token_id=SPECIAL + 3,
        boi_token_id=SPECIAL + 1, eoi_token_id=SPECIAL + 2, boa_token_id=SPECIAL + 4, eoa_token_index=SPECIAL + 5,
        audio_token_id=SPECIAL + 6, video_token_id=SPECIAL + 7, tie_word_embeddings=True,
        attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = Gemma4UnifiedForConditionalGeneration(config).eval()
    enliven(model, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in (*model.named_parameters(), *model.named_buffers()):
            if "patch_ln" in name or "pos_norm" in name:
                values.normal_(generator=random).mul_(0.3).add_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("pos_embedding"):
                values.normal_(generator=random).mul_(0.5)
            elif name.endswith("layer_scalar"):
                values.uniform_(0.6, 1.4, generator=random)
    model.model.register_forward_pre_hook(_masked, with_kwargs=True)
    return model


def _masked(model: torch.nn.Module, args: tuple[object, ...], given: dict[str, object]) -> tuple[object, object]:
    """What the class is called with, and Gemma 4's masks."""
    ids, types = given["input_ids"], given.get("mm_token_type_ids")
    if types is None:
        return args, given
    masks = create_masks_for_vision_model(
        config=model.config.get_text_config(), inputs_embeds=torch.zeros(*ids.shape, 1), attention_mask=None,
        cache=None, position_ids=torch.arange(ids.shape[1])[None],
        block_sequence_ids=get_block_sequence_ids_for_mask(types, device=ids.device),
    )  # fmt: skip
    return args, {**given, "attention_mask": masks}


def write_tower(
    path: Path, model: Gemma4UnifiedForConditionalGeneration, *, half: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    known = {
        "image_size": 224, "patch_size": PATCH, "embedding_length": WIDTH, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-6, "projector.scale_factor": POOL, "image_max_pixels": TOKENS * SQUARE**2,
        "block_count": 0, "feed_forward_length": 0, "attention.head_count": 0,
    }  # fmt: skip
    whole = {
        "clip.projector_type": "gemma4uv", **{f"clip.vision.{key}": value for key, value in known.items()},
        **look([0.0] * 3, [1.0] * 3), **(keys or {}),
    }  # fmt: skip

    def change(name: str, values: Floats) -> list[tuple[str, Floats]]:
        if name == "v.position_embd.weight":
            values = values.swapaxes(0, 1)
        elif name == "v.patch_embd.weight" or name.startswith("v.patch_norm.1"):
            values = as_planes(values)
        return [(name, values)]

    return write_mmproj(path, whole, model.state_dict(), RULES, half=half, change=change)


def as_planes(values: Floats) -> Floats:
    """Squares of the last axis, of pixels of three values, as three planes."""
    squares = values.reshape(*values.shape[:-1], SQUARE, SQUARE, 3)
    return squares.transpose(*range(values.ndim - 1), -1, -3, -2).reshape(values.shape)


@cache
def processor() -> StillProcessor:
    """Gemma 4's, whose patches are the squares."""
    named = {"boi_token": 1, "eoi_token": 2, "image_token": 3, "boa_token": 4, "eoa_token": 5, "audio_token": 6}
    tokenizer = byte_tokenizer(SPECIALS, "<|image|>", **{name: SPECIALS[i] for name, i in named.items()})
    tokenizer.pad_token = SPECIALS[0]
    pictures = Gemma4ImageProcessorPil(patch_size=SQUARE, max_soft_tokens=TOKENS, pooling_kernel_size=1)
    return StillProcessor(None, pictures, tokenizer, None)


TOWERS = {"gemma4_unified": Truth("gemma4uv", make, write_tower, processor, "<|image|>")}
