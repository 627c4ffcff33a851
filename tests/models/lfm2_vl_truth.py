"""A tiny random LFM2-VL, in transformers' class, and what its processor does, which wants torchvision, written down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, Lfm2VlConfig, Lfm2VlForConditionalGeneration, PreTrainedTokenizerFast
from vision_truth import SIGLIP, SPECIAL, Floats, Truth, byte_tokenizer, enliven, look, vision_keys, write_mmproj

PATCH, FOLD, SIDE, TILE = 4, 2, 5, 32  # SIDE: of the table of positions
STEP = PATCH * FOLD
LEAST, MOST, LEAST_TILES, MOST_TILES = 6, 20, 2, 6
MEAN, STD = [0.5, 0.45, 0.4], [0.5, 0.4, 0.3]
MARKER = "<image>"
MARKS = [f"<|img_row_{row + 1}_col_{column + 1}|>" for row in range(MOST_TILES) for column in range(MOST_TILES)]
SPECIALS = [MARKER, "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", *MARKS]
RULES = (
    *((rf"vision_tower\.{pattern}", name) for pattern, name in SIGLIP),
    (r"multi_modal_projector\.layer_norm", "mm.input_norm"), (r"multi_modal_projector\.linear_(\d)", r"mm.\1"),
)  # fmt: skip


def make(seed: int = 0, *, normed: bool = True) -> Lfm2VlForConditionalGeneration:
    torch.manual_seed(seed)
    text = {
        "model_type": "lfm2", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "pad_token_id": 2,
        "bos_token_id": 0, "eos_token_id": 1, "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    }  # fmt: skip
    vision = {
        "model_type": "siglip2_vision_model", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 4, "patch_size": PATCH, "num_patches": SIDE**2, "vision_use_head": False,
    }  # fmt: skip
    config = Lfm2VlConfig(
        text_config=text, vision_config=vision, image_token_id=SPECIAL, projector_hidden_size=72,
        projector_use_layernorm=normed, downsample_factor=FOLD, attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    model = Lfm2VlForConditionalGeneration(config).eval()
    enliven(model, seed)
    return model


def unnormed(seed: int = 0) -> Lfm2VlForConditionalGeneration:
    """As 2.5 is."""
    return make(seed, normed=False)


def write_tower(
    path: Path, model: Lfm2VlForConditionalGeneration, *, half: bool = False, keys: Mapping[str, object] | None = None
) -> Path:
    vision = model.config.vision_config
    vision.image_size = PATCH * SIDE
    known = {
        "clip.projector_type": "lfm2", "clip.vision.projector.scale_factor": FOLD, **vision_keys(vision, 64),
        **look(MEAN, STD),
        "clip.vision.image_min_pixels": LEAST * STEP**2, "clip.vision.image_max_pixels": MOST * STEP**2,
        "clip.vision.preproc_min_tiles": LEAST_TILES, "clip.vision.preproc_max_tiles": MOST_TILES,
        "clip.vision.preproc_tile_size": TILE, **(keys or {}),
    }  # fmt: skip

    def change(name, values):
        if name == "v.patch_embd.weight":  # its pixels stand row by row, with their colours
            values = values.reshape(-1, PATCH, PATCH, 3).transpose(0, 3, 1, 2)
        return [(name, values)]

    return write_mmproj(path, known, model.state_dict(), RULES, half=half, change=change)


@dataclass(frozen=True)
class Pictures:
    """The published image processor: sizes, tiles, rows of patches."""

    least: int = LEAST
    most: int = MOST
    fewest: int = LEAST_TILES
    tiles: int = MOST_TILES

    def save_pretrained(self, folder: Path) -> None:
        settings = {
            "image_processor_type": "Lfm2VlImageProcessorFast", "downsample_factor": FOLD, "do_image_splitting": True,
            "min_tiles": self.fewest, "max_tiles": self.tiles, "min_image_tokens": self.least,
            "max_image_tokens": self.most, "encoder_patch_size": PATCH, "tile_size": TILE, "image_mean": MEAN,
            "image_std": STD, "resample": 2, "use_thumbnail": True, "max_pixels_tolerance": 2.0,
        }  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))

    def cut(self, image: Image.Image) -> tuple[tuple[int, int], list[Image.Image]]:
        """Columns and rows of tiles, and the images: tiles and the whole, or the whole alone."""
        image = image.convert("RGB")
        whole = image.resize(self.whole(*image.size), Image.Resampling.BILINEAR)
        rounded = [max(PATCH, round(side / STEP) * STEP) for side in image.size]
        if self.tiles == 1 or math.prod(rounded) <= self.most * STEP**2 * 2.0:
            return (1, 1), [whole]
        wide, high = self.grid(*image.size)
        sheet = image.resize((wide * TILE, high * TILE), Image.Resampling.BILINEAR)
        corners = [(x * TILE, y * TILE) for y in range(high) for x in range(wide)]
        return (wide, high), [*(sheet.crop((x, y, x + TILE, y + TILE)) for x, y in corners), whole]

    def whole(self, width: int, height: int) -> tuple[int, int]:
        wide, high = (max(STEP, round(side / STEP) * STEP) for side in (width, height))
        least, most = (tokens * STEP**2 for tokens in (self.least, self.most))
        if wide * high > most:
            beta = math.sqrt(height * width / most)
            return tuple(max(STEP, math.floor(side / beta / STEP) * STEP) for side in (width, height))
        if wide * high < least:
            beta = math.sqrt(least / (height * width))
            return tuple(math.ceil(side * beta / STEP) * STEP for side in (width, height))
        return wide, high

    def grid(self, width: int, height: int) -> tuple[int, int]:
        counts = range(1, self.tiles + 1)
        grids = [(wide, high) for wide in counts for high in counts if self.fewest <= wide * high <= self.tiles]
        best, least = (1, 1), math.inf
        for wide, high in sorted(grids, key=math.prod):
            distance = abs(width / height - wide / high)
            if distance < least or (distance == least and width * height > 0.5 * TILE**2 * wide * high):
                best, least = (wide, high), distance
        return best

    def __call__(self, images: Sequence[Image.Image]) -> tuple[list[tuple[int, int]], list[Floats]]:
        """The grids of tiles, and the normalised pixels [channels, height, width] of all that is shown."""
        made = [self.cut(image) for image in images]
        mean, std = np.float32(MEAN), np.float32(STD)
        shown = [((np.asarray(image) / np.float32(255) - mean) / std).transpose(2, 0, 1)
                 for _, images in made for image in images]  # fmt: skip
        return [grid for grid, _ in made], shown


def patched(shown: Sequence[Floats]) -> dict[str, torch.Tensor]:
    """What the class takes of pixels."""
    grids = [(image.shape[1] // PATCH, image.shape[2] // PATCH) for image in shown]
    longest = max(high * wide for high, wide in grids)
    rows = np.zeros((len(shown), longest, 3 * PATCH**2), np.float32)
    seen = np.zeros((len(shown), longest), np.int64)
    for i, (image, (high, wide)) in enumerate(zip(shown, grids, strict=True)):
        split = image.reshape(3, high, PATCH, wide, PATCH).transpose(1, 3, 2, 4, 0)
        rows[i, : high * wide] = split.reshape(high * wide, -1)
        seen[i, : high * wide] = 1
    given = {"pixel_values": rows, "pixel_attention_mask": seen, "spatial_shapes": np.array(grids)}
    return {name: torch.from_numpy(values) for name, values in given.items()}


@dataclass(frozen=True)
class Processor:
    image_processor: Pictures
    tokenizer: PreTrainedTokenizerFast

    def __call__(
        self, text: Sequence[str], images: Sequence[Image.Image] | None = None, **options: object
    ) -> BatchFeature:
        if not images:
            return BatchFeature(self.tokenizer(text, **options))
        grids, shown = self.image_processor(images)
        spelt, one = text[0].replace(MARKER, "<placeholder>"), iter(shown)
        for wide, high in grids:
            said = "<|image_start|>"
            for tile in range(wide * high if wide * high > 1 else 0):
                said += f"<|img_row_{tile // wide + 1}_col_{tile % wide + 1}|>{self._rows(next(one))}"
            said += f"{'<|img_thumbnail|>' * (wide * high > 1)}{self._rows(next(one))}<|image_end|>"
            spelt = spelt.replace("<placeholder>", said, 1)
        return BatchFeature({**self.tokenizer([spelt], **options), **patched(shown)})

    @staticmethod
    def _rows(image: Floats) -> str:
        return MARKER * (image.shape[1] * image.shape[2] // STEP**2)

    def of(self, **options: int) -> Processor:
        return replace(self, image_processor=replace(self.image_processor, **options))


@cache
def processor() -> Processor:
    return Processor(Pictures(), byte_tokenizer(SPECIALS, MARKER))


TOWERS = {
    "lfm2_vl": Truth("lfm2", make, write_tower, processor, MARKER),
    "lfm2.5_vl": Truth("lfm2", unnormed, write_tower, processor, MARKER),
}
