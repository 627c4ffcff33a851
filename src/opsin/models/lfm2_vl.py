"""LFM2-VL and LFM2.5-VL: SigLIP 2 on pictures of any shape; a large one is cut into tiles, and shown once more whole.

The tower's table of positions is stretched to each grid of patches; 2 x 2 patches side by side go through a norm, which
later models lack, and two linear layers. The text is LFM2.

GGUF: clip.projector_type = "lfm2". llama.cpp takes the numbers of how pictures are cut for granted; keys of ours say
others: clip.vision.image_min_pixels and image_max_pixels of a picture that is not cut, preproc_min_tiles and
preproc_max_tiles, and preproc_tile_size, in pixels. It also has a GELU of tanh in the projector; here it is exact.
Oracle: transformers' Lfm2VlForConditionalGeneration, and the published definition of its processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import (
    SIZES,
    by_channel,
    by_channel_shape,
    expect,
    normalisation_keys,
    projector_keys,
    siglip,
    tower_sizes,
)
from opsin.media import sizes, steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.media.sizes import Grid
from opsin.models.paddleocr import square_table
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.pictures import Preparation, Shared
from opsin.nn.position_tables import stretched
from opsin.nn.vit import Vit, attention_spans, block_order, vit_shape
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

if TYPE_CHECKING:
    from PIL.Image import Image

START, END, OVERVIEW = "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"
LEAST_TOKENS, MOST_TOKENS = 64, 256  # of a picture that is not cut, where the file does not say; so also below
LEAST_TILES, MOST_TILES, TILE = 2, 10, 512
TOO_MANY_TILES = 64
TOLERANCE = 2  # a picture is cut where it has so many times the most pixels, and more
EPS = 1e-5  # of the projector's norm: a number of code, not of any setting
UNCUT = (1, 1)


class Projector(Module):
    norm: Annotated[LayerNorm | None, at("input_norm")]
    up: Annotated[Linear, at("1")]
    down: Annotated[Linear, at("2")]

    def check(self, inputs: int, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        if self.norm is not None:
            self.norm.check(inputs)
        self.up.check(inputs, self.down.inputs)
        self.down.check(self.up.outputs, width)

    def __call__(self, x: Array) -> Array:
        if self.norm is not None:
            x = self.norm(x, EPS)
        return self.down(self.up(x, activation="gelu_erf"))


@dataclass(frozen=True)
class Cutting:
    """What becomes of a picture's size.

    Attributes:
        side: pixels that each side is a multiple of.
        pixels: least and most of a picture that is not cut.
        tiles: least and most of one that is; at most one: none is.
        tile: pixels along a tile's side.
    """

    side: int
    pixels: tuple[int, int]
    tiles: tuple[int, int]
    tile: int

    @classmethod
    def load(cls, file: File, side: int, ceiling: int) -> Cutting:
        """Raises ModelError for numbers that do not go together, naming their keys."""
        least = positive_int(file, "clip.vision.image_min_pixels", LEAST_TOKENS * side**2)
        most = positive_int(file, "clip.vision.image_max_pixels", max(MOST_TOKENS * side**2, least))
        fewest = positive_int(file, "clip.vision.preproc_min_tiles", LEAST_TILES)
        tiles = positive_int(file, "clip.vision.preproc_max_tiles", max(MOST_TILES, fewest))
        tile = positive_int(file, "clip.vision.preproc_tile_size", -(-TILE // side) * side)
        if not (least <= most <= ceiling and fewest <= tiles <= TOO_MANY_TILES):
            raise ModelError(
                f"{file.path}: clip.vision.image_min_pixels is {least}, image_max_pixels {most}, preproc_min_tiles"
                f" {fewest}, preproc_max_tiles {tiles}", hint="the file is damaged",
            )  # fmt: skip
        if tile % side or tile**2 > ceiling:
            raise ModelError(f"{file.path}: clip.vision.preproc_tile_size is {tile}, in squares of {side}")
        return cls(side, (least, most), (fewest, tiles), tile)

    def grids(self, size: Size) -> Iterator[Grid]:
        """Of tiles: the usual one, then those for fewer and fewer, down to none; none alone for a small picture."""
        fewest, most = self.tiles
        wide, high = (max(self.side // 2, round(length / self.side) * self.side) for length in size)
        if wide * high > TOLERANCE * self.pixels[1]:
            for count in range(most, max(fewest, 2) - 1, -1):
                yield sizes.closest_grid(size, self.tile, fewest, count)
        yield UNCUT


@dataclass(frozen=True, eq=False)
class Lfm2Vision:
    """`positions` [side * side, width] are stretched to each picture."""

    tower: Vit
    projector: Projector
    preparation: Preparation
    positions: Floats
    cutting: Cutting
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Lfm2Vision:
        shape = vit_shape(file, sized=False)
        fold = positive_int(file, "clip.vision.projector.scale_factor", 2)
        if fold > 16:
            raise ModelError(f"{file.path}: clip.vision.projector.scale_factor is {fold}", hint="the file is damaged")
        projector = Projector.read(source, "mm")
        projector.check(shape.width * fold**2, positive_int(file, "clip.vision.projection_dim"))
        tower, cutting = Vit.load(file, source, shape), Cutting.load(file, shape.patch * fold, shape.most_pixels)
        if tower.extra:
            raise ModelError(f"{file.path}: v.class_embd is a row beside the patches, and nobody looks at it")
        preparation = Preparation.of(file, shape.patch, fold)
        return cls(tower, projector, preparation, square_table(source, shape.width), cutting)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        sizes.check_shape(picture.size)
        columns, rows = grid = picture.budget.choose(self.cutting.grids(picture.size), partial(self._cost, picture))
        size = self._whole(picture, grid)
        overview = self.preparation.stretched(picture, size, "bilinear")
        parts: list[str | MediaSpan] = [START]
        if grid != UNCUT:
            size = (columns * self.cutting.tile, rows * self.cutting.tile)
            steps.check_growth(picture.size, size)
            parts += [*self._tiles(picture, grid, size), OVERVIEW]
        return Patches((*parts, overview, END), picture.notes, original=picture.size, whole=size)

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        tower, block = self.tower, self.preparation.block
        positions = stretched(self.positions, high, wide, "averaged")[block_order(high, wide, block)]
        spans = attention_spans(tower.ops, [0, high * wide], pictures)
        x = tower.run(tower.embed(features, tower.ops.constant(positions)), [spans] * tower.shape.layers)
        return self.projector(x.ops.fold(tower.finish(x), block**2))

    def _whole(self, picture: Picture, grid: Grid) -> Size:
        """Of a picture that is not cut, or shown once more."""
        side, usual = self.cutting.side, self.cutting.pixels
        size = sizes.fit_pixels(picture.size, side, *usual, thin=True)
        if grid != UNCUT:
            return size
        bounds = picture.budget.pixels(side**2, *usual, ceiling=self.tower.shape.most_pixels)
        asked = sizes.fit_pixels(picture.size, side, *bounds, thin=True)
        return min(size, asked, key=math.prod) if math.prod(asked) > bounds[1] else asked  # thin ones may even grow

    def _cost(self, picture: Picture, grid: Grid) -> tuple[Size, int]:
        (columns, rows), cutting, whole = grid, self.cutting, self._whole(picture, grid)
        tokens, one = math.prod(whole) // cutting.side**2, (cutting.tile // cutting.side) ** 2
        if grid == UNCUT:
            return whole, tokens
        return (columns * cutting.tile, rows * cutting.tile), columns * rows * one + tokens

    def _tiles(self, picture: Picture, grid: Grid, size: Size) -> Iterator[str | MediaSpan]:
        """The tiles of the picture at `size`, row by row."""
        columns, rows = grid
        side = self.cutting.tile
        sheet = Shared(lambda: steps.resize(steps.flatten(picture), size, "bilinear"), columns * rows)
        for i, area in enumerate(sizes.areas(picture.size, grid)):
            row, column = divmod(i, columns)
            corner = (column * side, row * side)
            make = partial(self._cut, sheet, (*corner, corner[0] + side, corner[1] + side))
            yield f"<|img_row_{row + 1}_col_{column + 1}|>"
            yield self.preparation.span(picture, "tile", size, corner, make=make, size=(side, side), area=area)

    def _cut(self, sheet: Shared[Image], box: tuple[int, int, int, int]) -> Floats:
        return self.preparation.patches(sheet.get().crop(box))


def _fold(settings: Settings) -> int:
    return settings.number("downsample_factor", 2)


def _pixels(name: str, tokens: int, settings: Settings) -> int:
    """Of so many tokens."""
    side = settings.number("preprocessor.encoder_patch_size|vision_config.patch_size", 16) * _fold(settings)
    return settings.number(f"preprocessor.{name}", tokens) * side**2


def _tiles(name: str, tiles: int, settings: Settings) -> int:
    cut = settings.get("preprocessor.do_image_splitting", "bool", True)
    return settings.number(f"preprocessor.{name}", tiles) if cut else 1


def _side(settings: Settings) -> int:
    """Of the table of positions."""
    patch, patches = settings.number("vision_config.patch_size", 16), settings.number("vision_config.num_patches", 256)
    return patch * math.isqrt(patches)


def _check(settings: Settings) -> None:
    expect(settings, {"projector_hidden_act": "gelu", "vision_feature_layer": -1})


_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16,
}  # fmt: skip
_PATCH = "vision_tower.embeddings.patch_embedding"
ENCODERS = {"lfm2": Lfm2Vision.load}
RULES = (
    Rules(
        part="vision",
        architecture="lfm2",
        classes=("Lfm2VlForConditionalGeneration",),
        keys=(
            *projector_keys("lfm2", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER, {key: path for key, path in SIZES.items() if key != "image_size"}),
            *normalisation_keys([0.5] * 3, [0.5] * 3),
            Key("clip.vision.image_size", _side),
            Key("clip.vision.projection_dim", "text_config.hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", _fold),
            Key("clip.vision.image_min_pixels", partial(_pixels, "min_image_tokens", LEAST_TOKENS)),
            Key("clip.vision.image_max_pixels", partial(_pixels, "max_image_tokens", MOST_TOKENS)),
            Key("clip.vision.preproc_min_tiles", partial(_tiles, "min_tiles", LEAST_TILES)),
            Key("clip.vision.preproc_max_tiles", partial(_tiles, "max_tiles", MOST_TILES)),
            Key("clip.vision.preproc_tile_size", "preprocessor.tile_size", "int", TILE),
        ),
        tensors=(
            Tensor(f"{_PATCH}.weight", "v.patch_embd.weight", by_channel, by_channel_shape),
            Tensor(f"{_PATCH}.bias", "v.patch_embd.bias"),
            *(rule for rule in siglip("vision_tower") if rule.target != "v.patch_embd"),
            Tensor("multi_modal_projector.layer_norm", "mm.input_norm"),
            Tensor("multi_modal_projector.linear_1", "mm.1"),
            Tensor("multi_modal_projector.linear_2", "mm.2"),
        ),
        dropped=("vision_tower.head.*",),
        check=_check,
        assumed={
            "preprocessor.resample": 2, "preprocessor.use_thumbnail": True,
            "preprocessor.max_pixels_tolerance": float(TOLERANCE),
            "preprocessor.downsample_factor": _fold,
            "preprocessor.encoder_patch_size": lambda s: s.number("vision_config.patch_size", 16),
        },
    ),
)  # fmt: skip
