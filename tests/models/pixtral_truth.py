"""Tiny random Pixtral, Mistral Small 3.1 and Ministral 3, in transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from checkpoints import YARN
from foreign import Foreign, Tensors
from tiny import tiny_llama
from transformers import (
    BatchFeature,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from vision_truth import SPECIAL, Truth, byte_tokenizer, enliven, look, write_mmproj

from opsin.gguf import File, NewTensor, write

WIDTH, HEADS, LAYERS, PATCH, SIDE, MERGE = 48, 4, 3, 4, 96, 2
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SPECIALS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
TEXT = {
    "model_type": "mistral", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "sliding_window": None, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
COMMON = {
    "image_token_index": SPECIAL, "vision_feature_layer": -1, "projector_hidden_act": "gelu",
    "attn_implementation": "eager", "dtype": torch.float32,
}  # fmt: skip
RULES = (
    (r"vision_tower\.patch_conv", "v.patch_embd"),
    (r"vision_tower\.ln_pre", "v.pre_ln"),
    (r"transformer\.layers\.(\d+)\.attention_norm", r"v.blk.\1.ln1"),
    (r"transformer\.layers\.(\d+)\.ffn_norm", r"v.blk.\1.ln2"),
    (r"transformer\.layers\.(\d+)\.attention\.o_proj", r"v.blk.\1.attn_out"),
    (r"transformer\.layers\.(\d+)\.attention\.([qkv])_proj", r"v.blk.\1.attn_\2"),
    (r"transformer\.layers\.(\d+)\.feed_forward\.(gate|up|down)_proj", r"v.blk.\1.ffn_\2"),
    (r"multi_modal_projector\.norm", "mm.input_norm"),
    (r"multi_modal_projector\.patch_merger\.merging_layer", "mm.patch_merger"),
    (r"multi_modal_projector\.linear_(\d)", r"mm.\1"),
)


def vision() -> PixtralVisionConfig:
    return PixtralVisionConfig(
        hidden_size=WIDTH, intermediate_size=80, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIDE,
        patch_size=PATCH, hidden_act="silu", rope_parameters={"rope_type": "axial", "rope_theta": 10000.0},
    )  # fmt: skip


def pixtral_truth(seed: int = 0) -> LlavaForConditionalGeneration:
    torch.manual_seed(seed)
    config = LlavaConfig(
        text_config=TEXT, vision_config=vision(), vision_feature_select_strategy="full", **COMMON
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    enliven(model, seed)
    return model


def mistral3_truth(seed: int = 0, **text: object) -> Mistral3ForConditionalGeneration:
    """With a merger, without biases. `text` replaces settings of its decoder."""
    torch.manual_seed(seed)
    config = Mistral3Config(
        text_config=TEXT | text, vision_config=vision(), spatial_merge_size=MERGE, multimodal_projector_bias=False,
        tie_word_embeddings=False, **COMMON,
    )  # fmt: skip
    model = Mistral3ForConditionalGeneration(config).eval()
    enliven(model, seed)
    return model


def ministral3_truth(seed: int = 0) -> Mistral3ForConditionalGeneration:
    """The same around a decoder whose rope is stretched and whose queries grow."""
    return mistral3_truth(seed, model_type="ministral3", rope_parameters=YARN)


def write_text(path: Path, **keys: object) -> Path:
    """The tiny Llama under the name that newer files give to Mistral's decoder."""
    with File.open(tiny_llama(path.with_name("llama.gguf"))) as file:
        known = {name.replace("llama.", "mistral3.", 1): value for name, value in file.typed.items()}
        tensors = [NewTensor(name, info.shape, info.type, file.read(name)) for name, info in file.tensors.items()]
    known |= {"general.architecture": "mistral3", **{f"mistral3.{key}": value for key, value in keys.items()}}
    return write(path, known, tensors)[0]


def merges(model: PreTrainedModel) -> int:
    return getattr(model.config, "spatial_merge_size", 1)


def write_tower(
    path: Path, model: PreTrainedModel, *, half: bool = False, breaks: bool = False,
    keys: Mapping[str, object] | None = None,
) -> Path:  # fmt: skip
    """`breaks`: with the row that llama.cpp puts between rows of a picture."""
    sizes = {
        "image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": 80,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": 64,
        "attention.layer_norm_epsilon": 1e-5, **({"spatial_merge_size": MERGE} if merges(model) > 1 else {}),
    }  # fmt: skip
    known = {
        "clip.projector_type": "pixtral", "clip.use_silu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        if ".attn_q." in name or ".attn_k." in name:
            halves = values.reshape(HEADS, 2, -1, values.shape[1])
            return [(name, np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape))]
        return [(name, values)]

    tensors = dict(model.state_dict())
    rules = RULES
    if breaks:
        tensors["break"] = model.get_input_embeddings().weight[SPECIAL + 1]
        rules = (*RULES, (r"break", "v.token_embd.img_break"))
    return write_mmproj(path, known, tensors, rules, half=half, change=change)


@dataclass(frozen=True)
class Processor:
    """PixtralProcessor, which wants torchvision to be there at all."""

    image_processor: PixtralImageProcessorPil
    tokenizer: PreTrainedTokenizerFast
    factor: int

    def __call__(self, text: Sequence[str], images: Sequence[object] | None = None, **options: object) -> BatchFeature:
        if not images:
            return self.tokenizer(text, **options)
        made = self.image_processor(images, return_tensors="pt", patch_size=self.factor)
        spelt = text[0]
        for high, wide in (made["image_sizes"] // self.factor).tolist():
            rows = "[IMG_BREAK]".join(["<placeholder>" * wide] * high)
            spelt = spelt.replace("[IMG]", rows + "[IMG_END]", 1)
        return BatchFeature({**self.tokenizer([spelt.replace("<placeholder>", "[IMG]")], **options), **made})


@cache
def _processor(factor: int) -> Processor:
    pictures = PixtralImageProcessorPil(size={"longest_edge": SIDE}, patch_size={"height": PATCH, "width": PATCH})
    return Processor(pictures, byte_tokenizer(SPECIALS, "[IMG]"), factor)


def processor() -> Processor:
    return _processor(PATCH)


def merging_processor() -> Processor:
    return _processor(PATCH * MERGE)


TOWERS = {
    "pixtral": Truth("pixtral", pixtral_truth, write_tower, processor, "[IMG]"),
    "mistral small": Truth("pixtral", mistral3_truth, write_tower, merging_processor, "[IMG]"),
    "ministral3": Truth("pixtral", ministral3_truth, write_tower, merging_processor, "[IMG]"),
}
OTHERS = {"pixtral of llama.cpp": Truth("pixtral", pixtral_truth, write_tower, processor, "[IMG]", {"breaks": True})}


def _halves(tensors: Tensors, kinds: dict[str, int]) -> Tensors:
    """Rows of the tower's q and k as transformers has them."""
    found = dict(tensors)
    for name, rows in tensors.items():
        if name.startswith("v.") and (".attn_q." in name or ".attn_k." in name):
            found[name] = rows.reshape(HEADS, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
    return found


FOREIGN = Foreign(
    architecture="mistral3",
    truth="ministral3",
    implied={
        **look(MEAN, STD), "mistral3.rope.scaling.attn_factor": None, "mistral3.rope.scaling.yarn_log_multiplier": 0.6,
    },
    same=("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "image_size", "patch_size"),
    keys=lambda keys: {
        **{f"rope.scaling.{name}": keys[f"mistral3.rope.scaling.yarn_{name}"] for name in ("beta_fast", "beta_slow")},
        "rope.scaling.mscale_all_dim": 0.6, "rope.scaling_beta": keys["mistral3.attention.temperature_scale"],
        "rope.dimension_count": 21, "image_token_index": SPECIAL, "vision.num_channels": 3,
        "vision.attention.key_length": WIDTH // HEADS, "vision.rope.freq_base": 10000.0, "mm.projector_bias": False,
        "spatial_merge_size": keys["clip.vision.spatial_merge_size"],
    },
    dropped=(
        "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier",
        "attention.temperature_scale",
    ),
    tensors=(
        (r"^v\.patch_embd", "v.patch_conv"), (r"^v\.pre_ln", "v.encoder_norm"), (r"\.attn_out\.", ".attn_output."),
        (r"\.ln1\.", ".attn_norm."), (r"\.ln2\.", ".ffn_norm."), (r"^mm\.(\d)", r"mm.linear_\1"),
        (r"^mm\.input_norm", "mm.norm"), (r"^mm\.patch_merger", "mm.patch_merger.merging_layer"),
    ),
    change=_halves,
)  # fmt: skip
