"""A tiny random MiniCPM-V 4.6 and 4.7, in transformers' classes: with both mergers, and with the last alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from transformers import (
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6Processor,
    MiniCPMV4_7Config,
    MiniCPMV4_7ForConditionalGeneration,
    MiniCPMV4_7Processor,
    PreTrainedModel,
)
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from vision_truth import (
    SIGLIP,
    SPECIAL,
    Truth,
    WithoutVideos,
    byte_tokenizer,
    enliven,
    look,
    vision_keys,
    write_mmproj,
)

SIDE, PATCH, TABLE, LAYERS, BEHIND = 48, 4, 10, 3, 1
MARKER = "<|image_pad|>"
SPECIALS = [MARKER, "<|video_pad|>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"]
MEAN, STD = [0.5, 0.45, 0.4], [0.5, 0.4, 0.3]
RULES = (
    (r"vit_merger\.layer_norm1", "v.vit_merger.ln1"), (r"vit_merger\.self_attn\.out_proj", "v.vit_merger.attn_out"),
    (r"vit_merger\.self_attn\.(.)_proj", r"v.vit_merger.attn_\1"), (r"vit_merger\.pre_norm", "v.vit_merger.ds_ln"),
    (r"vit_merger\.linear_1", "v.vit_merger.ds_ffn_up"), (r"vit_merger\.linear_2", "v.vit_merger.ds_ffn_down"),
    (r"model\.merger\.mlp\.0\.pre_norm", "mm.input_norm"), (r"model\.merger\.mlp\.0\.linear_1", "mm.up"),
    (r"model\.merger\.mlp\.0\.linear_2", "mm.down"), *((rf"vision_tower\.{theirs}", ours) for theirs, ours in SIGLIP),
)  # fmt: skip
MODES = {"16x": 4, "4x": 2}


NEWLINE = 198  # the byte tokenizer's id of one
NEWER = {  # of 4.7
    "image_start_id": SPECIAL + 2, "image_end_id": SPECIAL + 3, "slice_start_id": SPECIAL + 4,
    "slice_end_id": SPECIAL + 5, "newline_id": NEWLINE,
}  # fmt: skip


def make(
    mode: str, seed: int = 0, table: int = TABLE, *, newer: bool = False
) -> MiniCPMV4_6ForConditionalGeneration | MiniCPMV4_7ForConditionalGeneration:
    torch.manual_seed(seed)
    turning = {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5} if newer else {}
    text = {
        "model_type": "qwen3_5_text", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0],
                            "partial_rotary_factor": 0.25, "mrope_interleaved": True, **turning},
    }  # fmt: skip
    vision = {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "image_size": table * PATCH, "patch_size": PATCH,
    }  # fmt: skip
    config = (MiniCPMV4_7Config if newer else MiniCPMV4_6Config)(
        text_config=text, vision_config=vision, image_token_id=SPECIAL, video_token_id=SPECIAL + 1,
        insert_layer_id=BEHIND, downsample_mode=mode, attn_implementation="eager", dtype=torch.float32,
        **(NEWER if newer else {}),
    )  # fmt: skip
    model = (MiniCPMV4_7ForConditionalGeneration if newer else MiniCPMV4_6ForConditionalGeneration)(config).eval()
    enliven(model, seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("A_log"):
                values.sub_(2.0)  # slow decay
    return model


def write_tower(
    path: Path, model: PreTrainedModel, *, half: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    merge = MODES[model.config.downsample_mode]
    known = {
        "clip.projector_type": model.config.model_type, **vision_keys(model.config.vision_config, 64),
        **look(MEAN, STD), "clip.vision.image_size": SIDE, "clip.vision.projector.scale_factor": merge,
        **({"clip.vision.wa_layer_indexes": [BEHIND]} if merge == 4 else {}), **(keys or {}),
    }  # fmt: skip
    rules = RULES if merge == 4 else [rule for rule in RULES if "vit_merger" not in rule[0]]
    return write_mmproj(path, known, model.state_dict(), rules, half=half)


class StillProcessor(WithoutVideos, MiniCPMV4_6Processor):
    """MiniCPMV4_6Processor, of pictures."""


class NewerProcessor(WithoutVideos, MiniCPMV4_7Processor):
    """MiniCPMV4_7Processor, of pictures."""

    def create_mm_token_type_ids(self, input_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        return super().create_mm_token_type_ids([[int(id) for id in ids] for ids in input_ids])


class NoVideos:
    slice_mode, downsample_mode = True, "16x"


@cache
def processor(mode: str, *, newer: bool = False) -> StillProcessor | NewerProcessor:
    pictures = MiniCPMV4_6ImageProcessorPil(
        patch_size=PATCH, scale_resolution=SIDE, downsample_mode=mode, image_mean=MEAN, image_std=STD
    )
    names = {"image_start_token": "<image>", "image_end_token": "</image>", "slice_start_token": "<slice>",
             "slice_end_token": "</slice>", "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
             "image_token": MARKER, "video_token": "<|video_pad|>"}  # fmt: skip
    tokenizer = byte_tokenizer(SPECIALS, MARKER, **names)
    tokenizer.pad_token = SPECIALS[-1]
    return (NewerProcessor if newer else StillProcessor)(pictures, NoVideos(), tokenizer)


TOWERS = {
    "minicpmv4_6": Truth("minicpmv4_6", partial(make, "16x"), write_tower, partial(processor, "16x"), MARKER),
    "minicpmv4_6 4x": Truth("minicpmv4_6", partial(make, "4x"), write_tower, partial(processor, "4x"), MARKER),
}
