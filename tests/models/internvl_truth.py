"""Tiny random InternVLs, in transformers' class: one with layer norms, and one as the largest are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import BatchFeature, InternVLConfig, InternVLForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from vision_truth import SPECIAL, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

SIDE, PATCH, FOLD, LEAST, MOST = 24, 4, 2, 1, 6
ROWS = (SIDE // PATCH // FOLD) ** 2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MARKER = "<IMG_CONTEXT>"
SPECIALS = [MARKER, "<img>", "</img>"]
RULES = (
    (r"embeddings\.cls_token", "v.class_embd"),
    (r"embeddings\.position_embeddings", "v.position_embd.weight"),
    (r"embeddings\.patch_embeddings\.projection", "v.patch_embd"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.layernorm_before", r"v.blk.\1.ln1"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.layernorm_after", r"v.blk.\1.ln2"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.lambda_(\d)", r"v.blk.\1.ls\2.weight"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj", r"v.blk.\1.attn_\2"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.attention\.([qk])_norm", r"v.blk.\1.attn_\2_norm"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.attention\.projection_layer", r"v.blk.\1.attn_out"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.mlp\.fc1", r"v.blk.\1.ffn_up"),
    (r"vision_tower\.encoder\.layer\.(\d+)\.mlp\.fc2", r"v.blk.\1.ffn_down"),
    (r"multi_modal_projector\.layer_norm", "mm.model.mlp.0"),
    (r"multi_modal_projector\.linear_1", "mm.model.mlp.1"),
    (r"multi_modal_projector\.linear_2", "mm.model.mlp.3"),
)
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0,
    "eos_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip
TOWER = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SIDE,
    "patch_size": PATCH,
}  # fmt: skip
LARGEST = {"norm_type": "rms_norm", "use_qk_norm": True}


def truth_of(text: Mapping[str, object], seed: int = 0, **tower: object) -> InternVLForConditionalGeneration:
    """With a text of this kind."""
    torch.manual_seed(seed)
    config = InternVLConfig(
        text_config={**TEXT, **text}, vision_config={**TOWER, **tower}, image_token_id=SPECIAL,
        image_seq_length=ROWS, tie_word_embeddings=False, attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config).eval()
    enliven(model, seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                values.mul_(3.0**0.5)  # peaked attention
    return model


def internvl_truth(seed: int = 0) -> InternVLForConditionalGeneration:
    return truth_of(
        {"model_type": "qwen2", "head_dim": 16}, seed, attention_bias=True
    )  # llama.cpp knows no other width


def largest_truth(seed: int = 0) -> InternVLForConditionalGeneration:
    return truth_of({"model_type": "qwen3", "head_dim": 32}, seed, **LARGEST)


def write_tower(
    path: Path, model: InternVLForConditionalGeneration, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    vision = model.config.vision_config
    known = {
        "clip.projector_type": "internvl", "clip.vision.projector.scale_factor": FOLD,
        "clip.vision.preproc_min_tiles": LEAST, "clip.vision.preproc_max_tiles": MOST, **vision_keys(vision, 64),
        "clip.vision.image_size": SIDE, "clip.vision.patch_size": PATCH, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        shape = {"v.class_embd": (-1,), "v.position_embd.weight": values.shape[1:]}.get(name, values.shape)
        return [(name, values.reshape(shape))]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


@dataclass(frozen=True)
class Processor:
    """InternVLProcessor, which wants torchvision to be there at all."""

    image_processor: GotOcr2ImageProcessorPil
    tokenizer: PreTrainedTokenizerFast

    def __call__(self, text: Sequence[str], images: Sequence[object] | None = None, **options: object) -> BatchFeature:
        if not images:
            return self.tokenizer(text, **options)
        made = self.image_processor(images, return_tensors="pt", crop_to_patches=True)
        spelt = text[0]
        for tiles in made.pop("num_patches").tolist():
            spelt = spelt.replace(MARKER, f"<img>{'<placeholder>' * ROWS * tiles}</img>", 1)
        return BatchFeature({**self.tokenizer([spelt.replace("<placeholder>", MARKER)], **options), **made})


@cache
def processor() -> Processor:
    pictures = GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD, min_patches=LEAST, max_patches=MOST
    )
    return Processor(pictures, byte_tokenizer(SPECIALS, MARKER))


TOWERS = {
    "internvl": Truth("internvl", internvl_truth, write_tower, processor, MARKER),
    "internvl6b": Truth("internvl", largest_truth, write_tower, processor, MARKER),
}
OTHERS = {
    "internvl of four tiles and more": Truth(
        "internvl", internvl_truth, write_tower, processor, MARKER,
        {"keys": {"clip.vision.preproc_min_tiles": 4, "clip.vision.preproc_max_tiles": 9}},
    )
}  # fmt: skip
