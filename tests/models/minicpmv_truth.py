"""Tiny random MiniCPM-V 2.5, 2.6, 4.0 and 4.5: transformers' towers and texts, and between them the resampler.

transformers has no class for them. The resampler stands here as it was published, place by place, in float64.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import BatchFeature, PreTrainedTokenizerFast
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from vision_truth import SIGLIP, SPECIAL, Truth, byte_tokenizer, enliven, look, write_mmproj

Doubles = NDArray[np.float64]
WIDTH, HEAD, SIDE, PATCH, TABLE, LAYERS, EPS = 256, 128, 48, 6, 10, 3, 1e-6
SPECIALS = ["<unk>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"]
MARKER, SOFT = "(<image>./</image>)", "<unk>"
TOWER = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 4, "patch_size": PATCH}
TEXT = {
    "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
    "attn_implementation": "eager",
}  # fmt: skip


@dataclass(frozen=True)
class Version:
    """`number` is how files count it, `queries` how many rows a slice has."""

    name: str
    number: int
    text: str
    queries: int


VERSIONS = {
    "2.5": Version("2.5", 2, "Llama", 7),
    "2.6": Version("2.6", 3, "Qwen2", 5),
    "4.0": Version("4.0", 5, "Llama", 5),
    "4.5": Version("4.5", 6, "Qwen3", 5),
}
RULES = (
    *((rf"vpm\.{pattern}", name) for pattern, name in SIGLIP),
    (r"resampler\.query", "resampler.query"),
    (r"resampler\.kv_proj", "resampler.kv"),
    (r"resampler\.attn\.in_proj_(weight|bias)", r"resampler.attn.*.\1"),
    (r"resampler\.attn\.out_proj", "resampler.attn.out"),
    (r"resampler\.(ln_kv|ln_post|ln_q)", r"resampler.\1"),
    (r"resampler\.proj", "resampler.proj.weight"),
)


def norm(x: Doubles, weights: Mapping[str, Doubles], name: str) -> Doubles:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def position(row: int, column: int, width: int) -> Doubles:
    """Of a patch: waves of its column, then of its row."""
    turns = 10000.0 ** (-np.arange(0, width // 2, 2) / (width // 2))
    return np.concatenate([wave(place * turns) for place in (column, row) for wave in (np.sin, np.cos)])


def attention(q: Doubles, k: Doubles, v: Doubles) -> Doubles:
    """Of heads of HEAD values."""
    out = np.empty_like(q)
    for first in range(0, q.shape[1], HEAD):
        head = slice(first, first + HEAD)
        scores = q[:, head] @ k[:, head].T / np.sqrt(HEAD)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[:, head] = weights / weights.sum(1, keepdims=True) @ v[:, head]
    return out


class Resampler(nn.Module):
    """The parameters under their published names, and what is computed with them."""

    def __init__(self, queries: int, inputs: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.kv_proj = nn.Linear(inputs, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // HEAD)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=EPS) for _ in range(3))
        self.proj = nn.Parameter(torch.randn(width, width) * width**-0.5)

    def forward(self, x: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        w = {name: values.detach().double().numpy() for name, values in self.named_parameters()}
        x = norm(x.double().numpy() @ w["kv_proj.weight"].T, w, "ln_kv")
        places = np.stack([position(row, column, x.shape[1]) for row in range(high) for column in range(wide)])
        matrices = zip(np.split(w["attn.in_proj_weight"], 3), np.split(w["attn.in_proj_bias"], 3), strict=True)
        given = norm(w["query"], w, "ln_q"), x + places, x
        q, k, v = (rows @ matrix.T + bias for rows, (matrix, bias) in zip(given, matrices, strict=True))
        seen = attention(q, k, v) @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
        return torch.from_numpy(norm(seen, w, "ln_post") @ w["proj"]).float()


class MiniCpmV(nn.Module):
    """Text, tower and resampler under their published names.

    `table`: positions along a side. `seen` and `said` are settings of the tower and of the text, `side` is that of the
    pictures that need no slices.
    """

    def __init__(
        self, version: Version, table: int, *, side: int = SIDE, seen: Mapping[str, int] = TOWER,
        said: Mapping[str, object] = TEXT,
    ) -> None:  # fmt: skip
        super().__init__()
        self.version, self.side, self.patch = version, side, seen["patch_size"]
        self.seen = {"num_hidden_layers": LAYERS, **seen, "image_size": table * self.patch}
        heads = 8 if version.text == "Qwen2" else 4  # llama.cpp knows Qwen 2 with heads of width / heads alone
        config = getattr(transformers, f"{version.text}Config")(**{"num_attention_heads": heads, **said})
        self.llm = getattr(transformers, f"{version.text}ForCausalLM")(config)
        self.vpm = Idefics2VisionTransformer(Idefics2VisionConfig(**self.seen, attn_implementation="eager"))
        self.resampler = Resampler(version.queries, seen["hidden_size"], config.hidden_size)

    @property
    def table(self) -> int:
        return self.seen["image_size"] // self.patch

    def see(self, pixels: NDArray[np.float32]) -> torch.Tensor:
        """Rows [queries, width] of a slice [3, height, width]."""
        seen = self.vpm(torch.from_numpy(np.ascontiguousarray(pixels))[None]).last_hidden_state[0]
        return self.resampler(seen, pixels.shape[1] // self.patch, pixels.shape[2] // self.patch)

    def forward(
        self, input_ids: torch.Tensor, slices: Sequence[NDArray[np.float32]] = (), **_: object
    ) -> SimpleNamespace:
        given = self.llm.get_input_embeddings()(input_ids).clone()
        if slices:
            given[input_ids == SPECIAL] = torch.cat([self.see(pixels) for pixels in slices])
        return SimpleNamespace(logits=self.llm(inputs_embeds=given, use_cache=False).logits)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        first = self.version.name == "2.5"  # says no version, and counts a layer that it drops
        told = {} if first else {"version": float(self.version.name), "drop_vision_last_layer": False}
        config = {
            **self.llm.config.to_dict(), "architectures": ["MiniCPMV"], "model_type": "minicpmv", **told,
            "query_num": self.version.queries, "image_size": self.side,
            "vision_config": {**self.seen, "num_hidden_layers": self.seen["num_hidden_layers"] + first},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        save_file(
            {name: values.contiguous() for name, values in self.state_dict().items()}, folder / "model.safetensors"
        )


def make(version: Version, seed: int = 0, table: int = TABLE) -> MiniCpmV:
    """`table`: positions along a side."""
    torch.manual_seed(seed)
    model = MiniCpmV(version, table).eval()
    enliven(model, seed)
    with torch.no_grad():
        for ln in (model.resampler.ln_kv, model.resampler.ln_post):
            ln.weight.add_(1.0)
        model.resampler.attn.in_proj_weight[: 2 * WIDTH].mul_(2**0.5)  # peaked attention
    return model


def wide(name: str) -> MiniCpmV:
    """With as many positions as published models have."""
    return make(VERSIONS[name], table=70)


def write_tower(
    path: Path, model: MiniCpmV, *, half: bool = False, old: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    """`old`: as the first files were, which say neither a version nor how many queries there are."""
    sizes = {
        "image_size": SIDE, "patch_size": PATCH, "embedding_length": TOWER["hidden_size"], "block_count": LAYERS,
        "feed_forward_length": TOWER["intermediate_size"], "projection_dim": 0 if old else WIDTH,
        "attention.head_count": TOWER["num_attention_heads"], "attention.layer_norm_epsilon": EPS,
    }  # fmt: skip
    newer = {"clip.minicpmv_version": model.version.number, "clip.minicpmv_query_num": model.version.queries}
    known = {
        "clip.projector_type": "resampler", "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look([0.5] * 3, [0.5] * 3),
        **({"clip.has_minicpmv_projector": True} if old else newer), **(keys or {}),
    }  # fmt: skip
    table = [position(row, column, WIDTH) for row in range(model.table) for column in range(model.table)]
    tensors = {**model.state_dict(), "table": torch.from_numpy(np.stack(table))}

    def change(name, values):
        if ".*." in name:
            thirds = np.split(values, 3)
            return [(name.replace("*", letter), third) for letter, third in zip("qkv", thirds, strict=True)]
        if old and ".ffn_" in name:  # under each other's names
            up = name.replace("_up", "_?").replace("_down", "_up").replace("_?", "_down")
            return [(up, values)]
        return [(name, np.ascontiguousarray(values.T) if name == "resampler.proj.weight" else values)]

    return write_mmproj(path, known, tensors, (*RULES, ("table", "resampler.pos_embed_k")), half=half, change=change)


@dataclass(frozen=True)
class Pictures:
    """How pictures are cut. The processor of 4.6 rounds sides to two of its patches: it is told half of ours."""

    version: Version
    side: int = SIDE
    most: int = 9

    @property
    def theirs(self) -> MiniCPMV4_6ImageProcessorPil:
        return MiniCPMV4_6ImageProcessorPil(
            patch_size=PATCH // 2, downsample_mode="4x", scale_resolution=self.side, max_slice_nums=self.most
        )

    def __call__(self, image: Image.Image) -> tuple[list[NDArray[np.float32]], tuple[int, int]]:
        """A picture, its slices as [3, height, width], and rows and columns of them."""
        made = self.theirs(image, return_tensors="np")
        values, found, start, patch = made["pixel_values"][0], [], 0, PATCH // 2
        for high, wide in made["target_sizes"].tolist():
            flat = values[..., start : start + high * wide * patch].reshape(3, patch, high, wide, patch)
            found.append(flat.transpose(0, 2, 1, 3, 4).reshape(3, high * patch, wide * patch))
            start += high * wide * patch
        assert start == values.shape[-1]
        return found, tuple(made["grids"][0])

    def save_pretrained(self, folder: Path) -> None:
        says = {
            "image_processor_type": "MiniCPMVImageProcessor", "max_slice_nums": self.most,
            "scale_resolution": self.side, "patch_size": PATCH, "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3,
            "slice_mode": True, "use_image_id": self.version.name != "2.5", "image_feature_size": self.version.queries,
        }  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(says))


@dataclass(frozen=True)
class Processor:
    """How pictures are spelt."""

    image_processor: Pictures
    tokenizer: PreTrainedTokenizerFast

    def __call__(
        self, text: Sequence[str], images: Sequence[Image.Image] | None = None, **options: object
    ) -> BatchFeature:
        if not images:
            return self.tokenizer(text, **options)
        first, *rest = text[0].split(MARKER)
        made = [self.image_processor(image) for image in images]
        spelling = first
        for number, ((_, grid), after) in enumerate(zip(made, rest, strict=True)):
            spelling += self.spell(number, *grid) + after
        slices = [pixels for found, _ in made for pixels in found]
        return BatchFeature({**self.tokenizer([spelling], **options), "slices": slices})

    def spell(self, number: int, rows: int, columns: int) -> str:
        version = self.image_processor.version
        soft = SOFT * version.queries
        if version.name == "2.5":
            whole = f"<image>{soft}</image>"
            lines = "\n".join([whole * columns] * rows)
            return whole + (f"<slice>{lines}</slice>" if rows else "")
        lines = "\n".join([f"<slice>{soft}</slice>" * columns] * rows)
        return f"<image_id>{number}</image_id><image>{soft}</image>{lines}"


@cache
def processor(version: Version) -> Processor:
    return Processor(Pictures(version), byte_tokenizer(SPECIALS, MARKER))


def _truth(version: Version, **options: object) -> Truth:
    return Truth(
        "resampler", partial(make, version), write_tower, partial(processor, version), MARKER, options
    )  # fmt: skip


TOWERS = {
    "minicpmv2.5": _truth(VERSIONS["2.5"]),
    "minicpmv2.6": _truth(VERSIONS["2.6"]),
    "minicpmv4.0": _truth(VERSIONS["4.0"]),
    "minicpmv4.5": _truth(VERSIONS["4.5"]),
}
OTHERS = {"minicpmv of old files": _truth(VERSIONS["2.5"], old=True)}
