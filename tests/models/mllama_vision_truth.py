"""A tiny random Llama 3.2 Vision, in transformers' class, and that with the whole of Meta's rule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign import Foreign
from transformers import BatchFeature, MllamaConfig, MllamaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)
from vision_truth import SPECIAL, Truth, byte_tokenizer, enliven, look, write_mmproj

WIDTH, HEADS, LAYERS, GLOBAL, PATCH, SIDE, TILES = 48, 4, 4, 2, 4, 24, 4
ROWS = (SIDE // PATCH) ** 2 + 1  # of a tile; where they are a multiple of 8, transformers masks all of them
TAKEN = [1, 3]  # layers whose inputs are joined
MARKER = "<|image|>"
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TEXT = {
    "vocab_size": SPECIAL, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "cross_attention_layers": [1, 5],
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 5e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
BLOCK = (
    (r"input_layernorm", "ln1"), (r"post_attention_layernorm", "ln2"), (r"self_attn\.o_proj", "attn_out"),
    (r"self_attn\.([qkv])_proj", r"attn_\2"), (r"mlp\.fc1", "ffn_up"), (r"mlp\.fc2", "ffn_down"),
    (r"gate_attn", "attn_gate"), (r"gate_ffn", "ffn_gate"),
)  # fmt: skip
POSITIONS = r"gated_positional_embedding"
RULES = (
    (r"patch_embedding", "v.patch_embd"),
    (r"class_embedding", "v.class_embd"),
    (rf"{POSITIONS}\.embedding", "v.position_embd.weight"),
    (rf"{POSITIONS}\.gate", "v.position_embd.gate"),
    (rf"{POSITIONS}\.tile_embedding", "v.tile_position_embd"),
    (r"(pre|post)_tile_positional_embedding\.embedding", r"v.\1_tile_position_embd"),
    (r"(pre|post)_tile_positional_embedding\.gate", r"v.\1_tile_position_embd.gate"),
    (r"layernorm_(pre|post)", r"v.\1_ln"),
    *((rf"vision_model\.transformer\.layers\.(\d+)\.{theirs}", rf"v.blk.\1.{ours}") for theirs, ours in BLOCK),
    *((rf"global_transformer\.layers\.(\d+)\.{theirs}", rf"v.global.blk.\1.{ours}") for theirs, ours in BLOCK),
    (r"multi_modal_projector", "mm.0"),
)


def published(seed: int = 0) -> MllamaForConditionalGeneration:
    """As transformers computes it."""
    torch.manual_seed(seed)
    config = MllamaConfig(
        text_config=MllamaTextConfig(**TEXT),
        vision_config=MllamaVisionConfig(
            hidden_size=WIDTH, intermediate_size=80, num_hidden_layers=LAYERS, num_global_layers=GLOBAL,
            attention_heads=HEADS, image_size=SIDE, patch_size=PATCH, max_num_tiles=TILES,
            intermediate_layers_indices=[layer - 1 for layer in TAKEN], vision_output_dim=WIDTH * (1 + len(TAKEN)),
        ),
        image_token_index=SPECIAL, attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = MllamaForConditionalGeneration(config).eval()
    enliven(model, seed)
    random = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "positional_embedding" in name and values.ndim > 1:
                values.copy_(torch.randn(values.shape, generator=random) * 0.5)
            elif "gate" in name and values.ndim == 1:
                values.copy_(0.4 + torch.rand(values.shape, generator=random))
            elif name.endswith("cross_attn.q_norm.weight"):
                values.mul_(3)  # peaked attention
    return model


def mllama_truth(seed: int = 0) -> MllamaForConditionalGeneration:
    """With the whole of Meta's rule: rows that see no picture pass by the layers that look at them."""

    def passed_by(layer, given, options, made):
        seeing = options["full_text_row_masked_out_mask"]
        return made if seeing is None else torch.where(seeing[:, 0] > 0, made, given[0])

    model = published(seed)
    for module in model.modules():
        if isinstance(module, MllamaCrossAttentionDecoderLayer):
            module.register_forward_hook(passed_by, with_kwargs=True)
    return model


def write_tower(
    path: Path,
    model: MllamaForConditionalGeneration,
    *,
    half: bool = False,
    keys: Mapping[str, object] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """`tensors` take the place of the file's own, by its names."""
    sizes = {
        "image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": 80,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": TEXT["hidden_size"],
        "attention.layer_norm_epsilon": 1e-5, "global.block_count": GLOBAL, "max_num_tiles": TILES,
        "intermediate_layers_indices": np.int32(TAKEN),
    }  # fmt: skip
    known = {
        "clip.projector_type": "mllama", "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        made = {name: np.tanh(values) if "gate" in name else values}
        if name == "v.position_embd.gate":
            made = {name: 1 - made[name], "v.tile_position_embd.gate": made[name]}
        return {own: (tensors or {}).get(own, value) for own, value in made.items()}.items()

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


@dataclass(frozen=True)
class Processor:
    """MllamaProcessor, for a tokenizer that puts nothing before a text."""

    image_processor: MllamaImageProcessorPil
    tokenizer: PreTrainedTokenizerFast

    def __call__(self, text: Sequence[str], images: Sequence[object] | None = None, **options: object) -> BatchFeature:
        given = self.tokenizer(text, **options)
        if not images:
            return given
        made = self.image_processor([list(images)], return_tensors="pt")
        tiles = made.pop("num_tiles")
        ids = given["input_ids"].tolist()
        seen = [get_cross_attention_token_mask(row, SPECIAL) for row in ids]
        mask = convert_sparse_cross_attention_mask_to_dense(seen, tiles, TILES, len(ids[0]))
        return BatchFeature({**given, **made, "cross_attention_mask": torch.from_numpy(mask)})


@cache
def processor() -> Processor:
    pictures = MllamaImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD, max_image_tiles=TILES
    )
    return Processor(pictures, byte_tokenizer([MARKER], MARKER))


class MllamaTruth(Truth):
    """Its folder says which layers are joined as published ones do, not as transformers 5 takes it."""

    def save(self, model: MllamaForConditionalGeneration, folder: Path) -> None:
        super().save(model, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["vision_config"]["intermediate_layers_indices"] = TAKEN
        path.write_text(json.dumps(config))


MLLAMA = MllamaTruth("mllama", mllama_truth, write_tower, processor, MARKER)
TOWERS = {"mllama_vision": MLLAMA}
FOREIGN = Foreign(
    architecture="mllama",
    truth="mllama_vision",
    same=("block_count", "global.block_count", "intermediate_layers_indices", "embedding_length",
          "feed_forward_length", "attention.head_count", "attention.layer_norm_epsilon", "image_size", "patch_size",
          "max_num_tiles"),
    keys=lambda keys: {"vision.num_channels": 3},
    tensors=((r"\.ln1\.", ".attn_norm."), (r"\.ln2\.", ".ffn_norm."), (r"\.attn_out\.", ".attn_output.")),
)  # fmt: skip
