"""A tiny random Qwen3-VL, in transformers' class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign, Tensors
from transformers import (
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_truth import SPECIAL, Truth, WithoutVideos, byte_tokenizer, enliven, look, write_mmproj

PATCH, MERGE, WIDTH, HEADS, LAYERS, SIDE = 4, 2, 48, 4, 4, 5  # SIDE: of the table of positions
DEEP = [0, 2]  # layers of the tower whose states the decoder gets
LEAST, MOST = 32 * 32, 160 * 160  # pixels
MEAN, STD = [0.5, 0.47, 0.52], [0.5, 0.46, 0.55]
SPECIALS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
START, PAD, END, VIDEO = range(SPECIAL, SPECIAL + 4)
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0,
    "eos_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0, "mrope_section": [8, 5, 3],
                        "mrope_interleaved": True},
}  # fmt: skip
VISION = {
    "depth": LAYERS, "hidden_size": WIDTH, "num_heads": HEADS, "intermediate_size": 80, "patch_size": PATCH,
    "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 64, "num_position_embeddings": SIDE**2,
    "deepstack_visual_indexes": DEEP,
}  # fmt: skip
NEWER_TEXT = {
    **TEXT, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0, "mrope_section": [3, 3, 2],
                        "mrope_interleaved": True, "partial_rotary_factor": 0.5},
}  # fmt: skip
SHALLOW = {key: value for key, value in VISION.items() if key != "deepstack_visual_indexes"}
IDS = {
    "image_token_id": PAD, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
    "attn_implementation": "eager", "dtype": torch.float32,
}  # fmt: skip
RULES = (
    (r"visual\.patch_embed\.proj", "v.patch_embd"),
    (r"visual\.pos_embed", "v.position_embd"),
    (r"visual\.blocks\.(\d+)\.norm(\d)", r"v.blk.\1.ln\2"),
    (r"visual\.blocks\.(\d+)\.attn\.qkv", r"v.blk.\1.attn_qkv"),
    (r"visual\.blocks\.(\d+)\.attn\.proj", r"v.blk.\1.attn_out"),
    (r"visual\.blocks\.(\d+)\.mlp\.linear_fc1", r"v.blk.\1.ffn_up"),
    (r"visual\.blocks\.(\d+)\.mlp\.linear_fc2", r"v.blk.\1.ffn_down"),
    (r"visual\.merger\.norm", "v.post_ln"),
    (r"visual\.merger\.linear_fc1", "mm.0"),
    (r"visual\.merger\.linear_fc2", "mm.2"),
    (r"visual\.deepstack_merger_list\.(\d+)\.norm", r"v.deepstack.\1.norm"),
    (r"visual\.deepstack_merger_list\.(\d+)\.linear_fc(\d)", r"v.deepstack.\1.fc\2"),
)


EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "mlp_only_layers": [1]}


def third_truth(seed: int = 0) -> PreTrainedModel:
    return _lively(Qwen3VLForConditionalGeneration, Qwen3VLConfig(text_config=TEXT, vision_config=VISION, **IDS), seed)


def mixture_truth(seed: int = 0) -> PreTrainedModel:
    config = Qwen3VLMoeConfig(text_config={**TEXT, **EXPERTS}, vision_config=VISION, **IDS)
    return _lively(Qwen3VLMoeForConditionalGeneration, config, seed)


def newer_truth(seed: int = 0) -> PreTrainedModel:
    """Qwen 3.5: text of another kind, and the tower without DeepStack."""
    config = Qwen3_5Config(text_config=NEWER_TEXT, vision_config=SHALLOW, **IDS)
    return _lively(Qwen3_5ForConditionalGeneration, config, seed)


def newer_mixture_truth(seed: int = 0) -> PreTrainedModel:
    """The same with experts."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
               "shared_expert_intermediate_size": 32}  # fmt: skip
    config = Qwen3_5MoeConfig(text_config={**NEWER_TEXT, **experts}, vision_config=SHALLOW, **IDS)
    return _lively(Qwen3_5MoeForConditionalGeneration, config, seed)


def _lively(made: type[PreTrainedModel], config: object, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = made(config).eval()
    enliven(model, seed)
    with torch.no_grad():
        model.model.visual.pos_embed.weight.mul_(4)  # of the size of patches
        for name, values in model.named_parameters():
            if re.search(r"\b[qk]_norm", name):
                values.mul_(1.5)  # peaked attention
            elif name.endswith("A_log"):
                values.sub_(2.0)  # slow decay
    return model


def write_tower(
    path: Path, model: PreTrainedModel, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    sizes = {
        "image_size": PATCH * SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": 80,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-6, "image_min_pixels": LEAST, "image_max_pixels": MOST,
        "is_deepstack_layers": [layer in DEEP for layer in range(LAYERS)],
    }  # fmt: skip
    known = {
        "clip.projector_type": "qwen3vl_merger", "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip
    known = {key: value for key, value in known.items() if value is not None}

    def change(name, values):
        if name == "v.patch_embd.weight":
            return [(name, values[:, :, 0]), (f"{name}.1", values[:, :, 1])]
        return [(re.sub(r"deepstack\.(\d+)", lambda found: f"deepstack.{DEEP[int(found[1])]}", name), values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


class StillProcessor(WithoutVideos, Qwen3VLProcessor):
    """Qwen3VLProcessor, of pictures."""


@cache
def processor() -> StillProcessor:
    pictures = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, size={"shortest_edge": LEAST, "longest_edge": MOST}, image_mean=MEAN,
        image_std=STD,
    )  # fmt: skip
    return StillProcessor(pictures, byte_tokenizer(SPECIALS, TURN))


TURN = "<|vision_start|><|image_pad|><|vision_end|>"
FLAT = {"keys": {"clip.vision.is_deepstack_layers": [False] * LAYERS}}
TOWERS = {
    "qwen3vl": Truth("qwen3vl_merger", third_truth, write_tower, processor, TURN),
    "qwen3vlmoe": Truth("qwen3vl_merger", mixture_truth, write_tower, processor, TURN, like="qwen3vl"),
    "qwen35": Truth("qwen3vl_merger", newer_truth, write_tower, processor, TURN, FLAT),
    "qwen35moe": Truth("qwen3vl_merger", newer_mixture_truth, write_tower, processor, TURN, FLAT, "qwen35"),
}


def _moments(tensors: Tensors, kinds: dict[str, int]) -> Tensors:
    """Both moments in one kernel, and queries, keys and values apart."""
    found = dict(tensors)
    one, other = found["v.patch_embed.weight"], found.pop("second")
    found["v.patch_embed.weight"] = np.stack([one, other], 2).reshape(-1, 2, *one.shape[2:])
    for name in [name for name in found if re.match(r"v\..*attn_qkv", name)]:
        whole = found.pop(name)
        rows = whole.reshape(-1, whole.shape[-1]) if name.endswith("weight") else whole.reshape(3, -1)
        for part, values in zip("qkv", np.split(rows, 3), strict=True):
            new = name.replace("attn_qkv", f"attn_{part}")
            found[new], kinds[new] = values if name.endswith("weight") else values.reshape(-1), kinds[name]
    return found


TENSORS = (
    (r"^v\.patch_embd\.weight\.1$", "second"), (r"^v\.patch_embd", "v.patch_embed"),
    (r"^v\.position_embd", "v.pos_embed"), (r"^v\.post_ln", "v.merger.norm"), (r"^mm\.0", "v.merger.linear_fc1"),
    (r"^mm\.2", "v.merger.linear_fc2"), (r"\.ln(\d)\.", r".norm\1."), (r"\.ffn_up\.", ".mlp.linear_fc1."),
    (r"\.ffn_down\.", ".mlp.linear_fc2."), (r"^v\.deepstack\.0\.", "v.deepstack_merger.0."),
    (r"^v\.deepstack\.2\.", "v.deepstack_merger.1."), (r"(deepstack_merger.*)\.fc(\d)", r"\1.linear_fc\2"),
)  # fmt: skip
SAME = ("block_count", "embedding_length", "attention.head_count", "patch_size", "spatial_merge_size",
        "attention.layer_norm_epsilon", "image_mean", "image_std")  # fmt: skip
MORE = {
    "vision.num_channels": 3, "vision.temporal_patch_size": 2, "vision.shortest_edge": LEAST,
    "vision.longest_edge": MOST,
}  # fmt: skip


def _newer(tensors: Tensors, kinds: dict[str, int]) -> Tensors:
    """The same, and biases of steps that are not called so."""
    found = _moments(tensors, kinds)
    for name in [name for name in found if name.endswith("ssm_dt.bias")]:
        new = name.removesuffix(".bias")
        found[new], kinds[new] = found.pop(name), kinds[name]
    return found


FOREIGN = (
    *(
        Foreign(
            architecture=name, truth=name, same=SAME, tensors=TENSORS, change=_moments,
            keys=lambda keys: {"vision.deepstack_visual_indexes": DEEP, **MORE}, dropped=("n_deepstack_layers",),
        )
        for name in ("qwen3vl", "qwen3vlmoe")
    ),
    *(
        Foreign(
            architecture=name, truth=name, same=SAME, tensors=TENSORS, change=_newer,
            keys=lambda keys: {
                **MORE, "attention.head_count_kv": np.array([0, 2, 0], np.uint32), "ssm.v_head_reordered": True,
                "rope.mrope_interleaved": True,
            },
        )
        for name in ("qwen35", "qwen35moe")
    ),
)  # fmt: skip
