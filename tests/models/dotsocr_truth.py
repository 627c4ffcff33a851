"""A tiny random dots.ocr: transformers' text, and the tower as it was published, in float64.

transformers has no class for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision_truth import SPECIAL, Floats, Truth, WithoutVideos, byte_tokenizer, enliven, look, write_mmproj

PATCH, MERGE, WIDTH, HEADS, LAYERS, INNER, EPS = 4, 2, 48, 4, 3, 80, 1e-5
LEAST, MOST = 24 * 24, 120 * 120
FRAMES = 1  # in which the processor counts pixels
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
SPECIALS = ["<|img|>", "<|imgpad|>", "<|endofimg|>"]
TURN = "".join(SPECIALS)
TEXT = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0,
    "eos_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip
RULES = (
    (r"vision_tower\.patch_embed\.patchifier\.proj", "v.patch_embd"),
    (r"vision_tower\.patch_embed\.patchifier\.norm", "v.pre_ln"),
    (r"vision_tower\.blocks\.(\d+)\.norm(\d)", r"v.blk.\1.ln\2"),
    (r"vision_tower\.blocks\.(\d+)\.attn\.qkv", r"v.blk.\1.attn_qkv"),
    (r"vision_tower\.blocks\.(\d+)\.attn\.proj", r"v.blk.\1.attn_out"),
    (r"vision_tower\.blocks\.(\d+)\.mlp\.fc1", r"v.blk.\1.ffn_gate"),
    (r"vision_tower\.blocks\.(\d+)\.mlp\.fc2", r"v.blk.\1.ffn_down"),
    (r"vision_tower\.blocks\.(\d+)\.mlp\.fc3", r"v.blk.\1.ffn_up"),
    (r"vision_tower\.post_trunk_norm", "mm.post_norm"), (r"vision_tower\.merger\.ln_q", "mm.input_norm"),
    (r"vision_tower\.merger\.mlp\.(\d)", r"mm.\1"),
)  # fmt: skip


def _linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH, EPS), nn.RMSNorm(WIDTH, EPS)
        self.attn = nn.ModuleDict({"qkv": _linear(WIDTH, 3 * WIDTH), "proj": _linear(WIDTH, WIDTH)})
        shapes = {"fc1": (WIDTH, INNER), "fc2": (INNER, WIDTH), "fc3": (WIDTH, INNER)}
        self.mlp = nn.ModuleDict({name: _linear(*shape) for name, shape in shapes.items()})

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).reshape(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
        q, k = _turned(q, angles), _turned(k, angles)
        scores = (q @ k.transpose(1, 2) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        x = x + self.attn["proj"]((scores @ v).transpose(0, 1).reshape(len(x), -1))
        y = self.norm2(x)
        return x + self.mlp["fc2"](functional.silu(self.mlp["fc1"](y)) * self.mlp["fc3"](y))


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Halves of heads [heads, rows, width] by angles [rows, width / 2]."""
    one, other = x.chunk(2, -1)
    return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.patchifier = nn.ModuleDict(
            {"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH), "norm": nn.RMSNorm(WIDTH, EPS)}
        )
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.post_trunk_norm = nn.RMSNorm(WIDTH, EPS)
        side = WIDTH * MERGE**2
        self.merger = nn.ModuleDict(
            {"ln_q": nn.LayerNorm(WIDTH, 1e-6),
             "mlp": nn.Sequential(_linear(side, side, bias=True), nn.GELU(), _linear(side, 64, bias=True))}
        )  # fmt: skip

    def forward(self, patches: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        """Patches [high * wide, values], square after square, of one picture."""
        patchifier = self.patch_embed.patchifier
        x = patchifier["norm"](patchifier["proj"](patches.reshape(-1, 3, PATCH, PATCH)).reshape(len(patches), WIDTH))
        places = torch.stack(torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij"), -1)
        squares = places.reshape(high // MERGE, MERGE, wide // MERGE, MERGE, 2).transpose(1, 2).reshape(-1, 2)
        turns = 10000.0 ** (-torch.arange(0, WIDTH // HEADS // 2, 2, dtype=x.dtype) / (WIDTH // HEADS // 2))
        angles = (squares[:, :, None] * turns).reshape(len(x), -1)
        for block in self.blocks:
            x = block(x, angles)
        normed = self.merger["ln_q"](self.post_trunk_norm(x))
        return self.merger["mlp"](normed.reshape(len(x) // MERGE**2, -1))


class DotsOcr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.llm = Qwen2ForCausalLM(Qwen2Config(**TEXT, attn_implementation="eager"))
        self.vision_tower = Tower()

    @property
    def model(self) -> DotsOcr:
        return self

    def get_image_features(self, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        tower, ends = deepcopy(self.vision_tower).double(), grids.prod(-1).tolist()
        seen = zip(pixel_values.double().split(ends), grids.tolist(), strict=True)
        return torch.cat([tower(patches, high, wide) for patches, (_, high, wide) in seen]).float()

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None, **_: object,
    ) -> SimpleNamespace:  # fmt: skip
        given = self.llm.get_input_embeddings()(input_ids).clone()
        if pixel_values is not None and image_grid_thw is not None:
            given[input_ids == SPECIAL + 1] = self.get_image_features(pixel_values, image_grid_thw)
        return SimpleNamespace(logits=self.llm(inputs_embeds=given, use_cache=False).logits)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        vision = {
            "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "patch_size": PATCH, "spatial_merge_size": MERGE, "rms_norm_eps": EPS,
        }  # fmt: skip
        config = {
            **self.llm.config.to_dict(), "architectures": ["DotsOCRForCausalLM"], "model_type": "dots_ocr",
            "vision_config": vision,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {name.removeprefix("llm."): values.contiguous() for name, values in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")


def make(seed: int = 0) -> DotsOcr:
    torch.manual_seed(seed)
    model = DotsOcr().eval()
    enliven(model, seed)
    return model


def write_tower(path: Path, model: DotsOcr, *, half: bool = False, keys: Mapping[str, object] | None = None) -> Path:
    sizes = {
        "image_size": 0, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": INNER,
        "block_count": LAYERS, "attention.head_count": HEADS, "projection_dim": 64, "projector.scale_factor": MERGE,
        "attention.layer_norm_epsilon": EPS, "image_min_pixels": LEAST, "image_max_pixels": MOST,
    }  # fmt: skip
    known = {
        "clip.projector_type": "dots_ocr", "clip.use_silu": True,
        **{f"clip.vision.{key}": value for key, value in sizes.items()}, **look(MEAN, STD), **(keys or {}),
    }  # fmt: skip
    return write_mmproj(path, known, model.state_dict(), RULES, half=half)


class StillProcessor(WithoutVideos, Qwen2VLProcessor):
    """Qwen2VLProcessor, of pictures."""


@cache
def processor() -> StillProcessor:
    pictures = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, temporal_patch_size=1, size={"shortest_edge": LEAST, "longest_edge": MOST},
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip
    return StillProcessor(pictures, byte_tokenizer(SPECIALS, TURN, image_token=SPECIALS[1]))


def as_ours(patches: Floats, grid: NDArray[np.int64]) -> Floats:
    """transformers' patches as ours."""
    return patches.reshape(*grid[1:], -1)


TOWERS = {"dots.ocr": Truth("dots_ocr", make, write_tower, processor, TURN)}
