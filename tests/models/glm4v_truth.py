"""Tiny random GLM-4.1V, 4.5V, 4.6V-Flash and GLM-OCR, in transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign, Tensors
from numpy.typing import NDArray
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    PreTrainedModel,
)
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from vision_truth import SPECIAL, Floats, Truth, WithoutVideos, byte_tokenizer, enliven, look, write_mmproj

SIDE, PATCH, MERGE, WIDTH, HEADS, LAYERS = 24, 4, 2, 48, 4, 3
LEAST, MOST = 24 * 24, 120 * 120
FRAMES = 2  # in which the processor counts pixels
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
SPECIALS = ["<|begin_of_image|>", "<|image|>", "<|end_of_image|>", "<|video|>", "<|begin_of_video|>",
            "<|end_of_video|>"]  # fmt: skip
TURN = "".join(SPECIALS[:3])
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0,
    "eos_token_id": 1,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5,
    },
}  # fmt: skip
EXPERTS = {
    "n_routed_experts": 12, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 40,
    "routed_scaling_factor": 1.8, "first_k_dense_replace": 1,
}  # fmt: skip
VISION = {
    "depth": LAYERS, "hidden_size": WIDTH, "num_heads": HEADS, "image_size": SIDE, "patch_size": PATCH,
    "out_hidden_size": 64, "intermediate_size": 80,
}  # fmt: skip
IDS = {
    "image_token_id": SPECIAL + 1, "video_token_id": SPECIAL + 3, "image_start_token_id": SPECIAL,
    "image_end_token_id": SPECIAL + 2, "video_start_token_id": SPECIAL + 4, "video_end_token_id": SPECIAL + 5,
    "attn_implementation": "eager", "dtype": torch.float32,
}  # fmt: skip
RULES = (
    (r"visual\.patch_embed\.proj", "v.patch_embd"), (r"visual\.post_conv_layernorm", "v.norm_embd"),
    (r"visual\.embeddings\.position_embedding", "v.position_embd"),
    (r"visual\.blocks\.(\d+)\.norm(\d)", r"v.blk.\1.ln\2"),
    (r"visual\.blocks\.(\d+)\.attn\.proj", r"v.blk.\1.attn_out"),
    (r"visual\.blocks\.(\d+)\.attn\.(qkv|q_norm|k_norm)", r"v.blk.\1.attn_\2"),
    (r"visual\.blocks\.(\d+)\.mlp\.(gate|up|down)_proj", r"v.blk.\1.ffn_\2"),
    (r"visual\.post_layernorm", "v.post_ln"), (r"visual\.downsample", "mm.patch_merger"),
    (r"visual\.merger\.proj", "mm.model.fc"), (r"visual\.merger\.post_projection_norm", "mm.post_norm"),
    (r"visual\.merger\.(gate|up|down)_proj", r"mm.\1"),
)  # fmt: skip


def make(seed: int = 0) -> Glm4vForConditionalGeneration:
    torch.manual_seed(seed)
    model = Glm4vForConditionalGeneration(Glm4vConfig(text_config=TEXT, vision_config=VISION, **IDS)).eval()
    enliven(model, seed)
    return model


def make_flash(seed: int = 0) -> Glm46VForConditionalGeneration:
    torch.manual_seed(seed)
    text, vision = {**TEXT, "model_type": "glm4v_text"}, {**VISION, "model_type": "glm4v_vision"}
    model = Glm46VForConditionalGeneration(Glm46VConfig(text_config=text, vision_config=vision, **IDS)).eval()
    enliven(model, seed)
    return model


def make_mixture(seed: int = 0) -> Glm4vMoeForConditionalGeneration:
    torch.manual_seed(seed)
    config = Glm4vMoeConfig(text_config={**TEXT, **EXPERTS}, vision_config=VISION, **IDS)
    model = Glm4vMoeForConditionalGeneration(config).eval()
    enliven(model, seed)
    random = torch.Generator().manual_seed(seed)
    for name, values in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            values.normal_(generator=random).mul_(0.2)
    return model


def make_ocr(seed: int = 0) -> GlmOcrForConditionalGeneration:
    torch.manual_seed(seed)
    model = GlmOcrForConditionalGeneration(GlmOcrConfig(text_config=TEXT, vision_config=VISION, **IDS)).eval()
    enliven(model, seed)
    return model


def write_tower(
    path: Path, model: PreTrainedModel, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    sizes = {
        "image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": 0,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-5, "image_min_pixels": LEAST, "image_max_pixels": MOST,
    }  # fmt: skip
    known = {
        "clip.projector_type": "glm4v", "clip.use_silu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        if name == "v.patch_embd.weight":
            return [(name, values[:, :, 0]), (name + ".1", values[:, :, 1])]
        return [(name, values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


class StillProcessor(WithoutVideos, Glm4vProcessor):
    """Glm4vProcessor, of pictures."""

    def replace_image_token(self, image_inputs: Mapping[str, torch.Tensor], image_idx: int, **_: object) -> str:
        return self.image_token * (int(image_inputs["image_grid_thw"][image_idx].prod()) // MERGE**2)

    def create_mm_token_type_ids(self, input_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        return super().create_mm_token_type_ids([[int(id) for id in ids] for ids in input_ids])


def _processor(kind: type[Glm4vImageProcessorPil | Glm46VImageProcessorPil]) -> StillProcessor:
    pictures = kind(
        patch_size=PATCH, merge_size=MERGE, size={"shortest_edge": FRAMES * LEAST, "longest_edge": FRAMES * MOST},
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip
    return StillProcessor(pictures, byte_tokenizer(SPECIALS, TURN))


@cache
def processor() -> StillProcessor:
    return _processor(Glm4vImageProcessorPil)


@cache
def flash_processor() -> StillProcessor:
    return _processor(Glm46VImageProcessorPil)


def as_ours(patches: Floats, grid: NDArray[np.int64]) -> Floats:
    """transformers' patches, of two equal moments, as ours."""
    moments = patches.reshape(len(patches), 3, 2, -1)
    assert np.array_equal(moments[:, :, 0], moments[:, :, 1])
    return np.ascontiguousarray(moments[:, :, 0]).reshape(*grid[1:], -1)


def _text(name: str) -> str:
    """Ollama's names of the text's parts."""
    if name.startswith("blk."):
        for ours, theirs in (("attn_output", "attn_out"), ("post_attention_norm", "post_attn_norm"),
                             ("post_ffw_norm", "post_ffn_norm")):  # fmt: skip
            name = name.replace(ours, theirs)
    return name


def _apart(tensors: Tensors, kinds: dict[str, int]) -> Tensors:
    """The text under Ollama's names; gates of its networks, and what they gate, as two matrices."""
    found = {}
    for own, values in tensors.items():
        name = _text(own)
        kinds[name] = kinds[own]
        if name.startswith("blk.") and ".ffn_up." in name:
            gate = name.replace("ffn_up", "ffn_gate")
            found[gate], found[name] = np.split(values, 2)
            kinds[gate] = kinds[name]
        else:
            found[name] = values
    return found


FOREIGN = Foreign(
    architecture="glmocr",
    truth="glm_ocr",
    same=("block_count", "embedding_length", "attention.head_count", "image_size", "patch_size", "spatial_merge_size",
          "image_mean", "image_std"),
    keys=lambda keys: {
        "rope.mrope_section": np.array(keys["glm4.rope.dimension_sections"][:3], np.int32),
        "rope.partial_rotary_factor": 0.5, "vision.min_pixels": FRAMES * LEAST, "vision.max_pixels": FRAMES * MOST,
        "vision.intermediate_size": keys["clip.vision.feed_forward_length"], "vision.out_hidden_size": 64,
        "vision.attention.layer_norm_rms_epsilon": 1e-5, "vision.temporal_patch_size": 2,
    },
    dropped=("rope.dimension_sections", "rope.dimension_count"),
    tensors=((r"^v\.patch_embd\.weight\.1$", "v.patch_embd_1.weight"), (r"^v\.patch_embd\.", "v.patch_embd_0.")),
    change=_apart,
)  # fmt: skip
TOWERS = {
    "glm4v": Truth("glm4v", make, write_tower, processor, TURN),
    "glm46v": Truth("glm4v", make_flash, write_tower, flash_processor, TURN, like="glm4v"),
    "glm4v_moe": Truth("glm4v", make_mixture, write_tower, processor, TURN, like="glm4v"),
    "glm_ocr": Truth("glm4v", make_ocr, write_tower, processor, TURN),
}
