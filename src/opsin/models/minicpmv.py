"""MiniCPM-V 2.5, 2.6, 4.0 and 4.5: a picture in its own shape, and once more in slices; a few queries look at each.

The tower is SigLIP on any grid of patches: each patch gets the learned position that lies at its place in a square
table. The resampler is one layer of attention: its queries become the rows, its keys are patches that know their row
and column. The text part is a decoder of its own file.

GGUF: clip.projector_type = "resampler", clip.minicpmv_version. Oracle: transformers' Idefics2VisionTransformer as the
tower, the image processor of MiniCPM-V 4.6, and the published formula of the resampler in float64. llama.cpp writes no
numbers of pictures, which the published code does from 2.6 on, pads slices to the shape that they are stretched to
here, and makes a square of a picture that needs none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import ComputedTensor, Key, Rules, Settings, Tensor, constant
from opsin.gguf.vision_rules import SIZES, part, part_shape, projector_keys, siglip, tower_sizes
from opsin.media import sizes, steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.models.llama import RULES as TEXT_OF_2_5
from opsin.models.paddleocr import square_table
from opsin.models.qwen2 import RULES as TEXT_OF_2_6
from opsin.models.qwen3 import RULES as TEXT_OF_4_5
from opsin.nn.module import Module, Reader
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation, Shared
from opsin.nn.rope import frequencies
from opsin.nn.vit import Norm, Vit, VitShape, attention_spans, vit_shape
from opsin.ops import Array, most
from opsin.spans import MediaSpan, Patches

if TYPE_CHECKING:
    from PIL.Image import Image

HEAD, BASE = 128, 10000.0  # width of the resampler's heads, base of its waves: numbers of published code
SLICES = 9  # at most
FIRST, VERSIONS = 2, (2, 3, 4, 5, 6, 100045)  # as files count them, from 2.5 on; some are of MiniCPM-o as well
UNCUT = (1, 1)
Way = tuple[sizes.Grid, Size, Size]  # the grid of slices, the size of one, the size that all of the picture has
POSITIONS, QUERY = "v.position_embd.weight", "resampler.query"


class ResamplerAttention(Module):
    q: Linear
    k: Linear
    v: Linear
    out: Linear


class ResamplerWeights(Module):
    kv: Linear
    ln_q: Norm
    ln_kv: Norm
    attn: ResamplerAttention
    ln_post: Norm
    proj: Linear

    def check(self, inputs: int, width: int) -> None:
        """Raises ModelError, naming the tensor, where something does not fit."""
        self.kv.check(inputs, width)
        for matrix in (self.attn.q, self.attn.k, self.attn.v, self.attn.out, self.proj):
            matrix.check(width, width)
        for norm in (self.ln_q, self.ln_kv, self.ln_post):
            norm.check(width)


@dataclass(frozen=True, eq=False)
class Resampler:
    """`queries` [rows, width] are learned."""

    weights: ResamplerWeights
    queries: Array
    shape: VitShape

    @classmethod
    def load(cls, file: File, source: Reader, shape: VitShape) -> Resampler:
        queries = source.values(QUERY)
        if queries.ndim != 2 or not len(queries) or not queries.shape[1] or queries.shape[1] % HEAD:
            raise ModelError(f"{file.path}: {QUERY} is {queries.shape}; rows of heads of {HEAD} values are needed")
        told = file.get_int("clip.minicpmv_query_num", 0)
        if told not in (0, len(queries)):
            raise ModelError(f"{file.path}: clip.minicpmv_query_num is {told}, and {QUERY} has {len(queries)} rows")
        weights = ResamplerWeights.read(source, "resampler")
        weights.check(shape.width, queries.shape[1])
        return cls(weights, source.ops.constant(queries), shape)

    @property
    def rows(self) -> int:
        """Of the result, for each picture."""
        return most(self.queries.shape[0])

    def __call__(self, x: Array, pictures: int, high: int, wide: int) -> Array:
        """Patches [pictures * high * wide, inputs] -> [pictures * rows, width]."""
        w, ops, shape, width = self.weights, x.ops, self.shape, self.queries.width
        heads, every = (width // HEAD, HEAD), np.tile(np.arange(self.rows, dtype=np.int32), pictures)
        x = w.ln_kv(w.kv(x), shape)
        places = ops.constant(np.tile(waves(high, wide, width), (pictures, 1)))
        seen = ops.attend_dense(
            ops.take(w.attn.q(w.ln_q(self.queries, shape)), ops.constant(every)).reshape(*heads),
            w.attn.k(x + places).reshape(*heads),
            w.attn.v(x).reshape(*heads),
            ops.constant(np.zeros_like(every)),
            ops.constant(np.full_like(every, high * wide)),
            scale=HEAD**-0.5,
            parts=pictures,
        )
        return w.proj(w.ln_post(w.attn.out(seen.reshape(width)), shape))


def waves(high: int, wide: int, width: int) -> Floats:
    """[high * wide, width]: sines and cosines of each place's column, then of its row (Vaswani et al. 2017)."""
    made = np.empty((high, wide, width), np.float32)
    for count, half in ((wide, made[..., : width // 2]), (high, made[..., width // 2 :].swapaxes(0, 1))):
        angles = np.outer(np.arange(count), frequencies(width // 2, BASE))
        half[:] = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    return made.reshape(-1, width)


@dataclass(frozen=True, eq=False)
class SlicedVision:
    """What all versions do with pictures, and with positions.

    Attributes:
        positions: [side * side, width] that are learned, of a square.
        version: as files count them.
        factor: pixels that sides are multiples of.
    """

    tower: Vit
    preparation: Preparation
    positions: Floats
    version: int
    factor: int

    def rows(self, size: Size) -> int:
        """Embeddings of a slice, or of a whole picture, of this size."""
        raise NotImplementedError

    def layout(self, picture: Picture) -> Patches:
        grid, cell, size = picture.budget.choose(self._ways(picture.size), partial(self._cost, picture.size))
        whole = self._span(self.preparation.stretched(picture, self._near(picture.size, grid), "bicubic"))
        parts: list[str | MediaSpan] = ["<image>", whole, "</image>"]
        is_first = self.version == FIRST
        if grid != UNCUT:
            steps.check_growth(picture.size, size)
            slices = self._slices(picture, grid, cell, size)
            parts += ["<slice>", *slices, "</slice>"] if is_first else slices
        return Patches(
            tuple(parts), picture.notes, original=picture.size, whole=size,
            numbered="" if is_first else "<image_id>{}</image_id>",
        )  # fmt: skip

    def _ways(self, size: Size) -> Iterator[Way]:
        """How it may be cut, from the most slices that a picture may have down to none."""
        side = self.tower.shape.side
        for count in range(SLICES, 0, -1):
            grid = sizes.slice_grid(size, side, count)
            wide, high = cell = sizes.slice_size(size, grid, side, self.factor)
            yield grid, cell, (grid[0] * wide, grid[1] * high) if grid != UNCUT else self._near(size, grid)

    def _near(self, size: Size, grid: sizes.Grid) -> Size:
        """Of the picture as a whole; where it is small, a larger one, if it is shown but once."""
        return sizes.near_area(size, self.tower.shape.side, self.factor, grow=grid == UNCUT)

    def _cost(self, original: Size, way: Way) -> tuple[Size, int]:
        (columns, rows), cell, size = way
        if way[0] == UNCUT:
            return size, self.rows(size)
        return size, columns * rows * self.rows(cell) + self.rows(self._near(original, way[0]))

    def _slices(self, picture: Picture, grid: sizes.Grid, cell: Size, size: Size) -> Iterator[str | MediaSpan]:
        """Slices of `cell`, row by row, of the picture at `size`."""
        begin, end = ("<image>", "</image>") if self.version == FIRST else ("<slice>", "</slice>")
        sheet, (wide, high) = Shared(partial(_sheet, picture, size), grid[0] * grid[1]), cell
        for i, area in enumerate(sizes.areas(picture.size, grid)):
            row, column = divmod(i, grid[0])
            corner = (column * wide, row * high)
            make = partial(self._cut, sheet, (*corner, corner[0] + wide, corner[1] + high))
            yield "\n" + begin if row and not column else begin
            span = self.preparation.span(picture, "slice", size, cell, corner, make=make, size=cell, area=area)
            yield self._span(span)
            yield end

    def _span(self, span: MediaSpan) -> MediaSpan:
        """With as many rows as its size gets; they lie in no grid."""
        assert span.size is not None
        rows = self.rows(span.size)
        return replace(span, rows=rows, positions=rows, grid=None)

    def _places(self, high: int, wide: int) -> Ints:
        """Which of the learned positions each patch gets."""
        side = math.isqrt(len(self.positions))
        rows, columns = (side * np.arange(count) // count for count in (high, wide))
        return (rows[:, None] * side + columns).reshape(-1)

    def _cut(self, sheet: Shared[Image], box: tuple[int, int, int, int]) -> Floats:
        return self.preparation.patches(sheet.get().crop(box))


@dataclass(frozen=True, eq=False)
class MiniCpmVision(SlicedVision):
    resampler: Resampler
    marker: ClassVar[str] = "(<image>./</image>)"

    @classmethod
    def load(cls, file: File, source: Reader) -> MiniCpmVision:
        version = file.get_int("clip.minicpmv_version", FIRST)
        if version not in VERSIONS:
            raise ModelError(
                f"{file.path}: clip.minicpmv_version is {version}", hint="2.5, 2.6, 4.0, 4.5 are supported"
            )
        shape = vit_shape(file)
        table = square_table(source, shape.width)
        tower, resampler = Vit.load(file, source, shape), Resampler.load(file, source, shape)
        if tower.extra:
            raise ModelError(f"{file.path}: v.class_embd is a row beside the patches, and nobody looks at it")
        return cls(tower, Preparation.of(file, shape.patch), table, version, shape.patch, resampler)

    def rows(self, size: Size) -> int:
        return self.resampler.rows

    @property
    def width(self) -> int:
        return self.resampler.queries.width

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        tower, positions = self.tower, self.positions[self._places(high, wide)]
        spans = attention_spans(tower.ops, [0, high * wide], pictures)
        x = tower.run(tower.embed(features, tower.ops.constant(positions)), [spans] * tower.shape.layers)
        return self.resampler(tower.finish(x), pictures, high, wide)


def _sheet(picture: Picture, size: Size) -> Image:
    """All slices in one image."""
    return steps.resize(steps.flatten(picture), size, "bicubic")


_TOWER = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "patch_size": 14,
}  # fmt: skip
_CLASS = "MiniCPMV"
_NAMES = {key: path for key, path in SIZES.items() if key not in ("image_size", "block_count")}
_MATRICES = (
    Tensor("resampler.query", QUERY),
    Tensor("resampler.kv_proj", "resampler.kv"),
    *(Tensor(f"resampler.attn.in_proj_{end}", f"resampler.attn.{name}.{end}", part(i, 3), part_shape(3))
      for i, name in enumerate("qkv") for end in ("weight", "bias")),
    Tensor("resampler.attn.out_proj", "resampler.attn.out"),
    *(Tensor(f"resampler.{name}", f"resampler.{name}") for name in ("ln_q", "ln_kv", "ln_post")),
    Tensor("resampler.proj", "resampler.proj.weight", lambda values, _: np.ascontiguousarray(values.T),
           lambda shape, _: (shape[1], shape[0])),
)  # fmt: skip


def _layers(settings: Settings) -> int:
    """Those that a checkpoint holds: its class drops the last one where nothing is said."""
    dropped = settings.get("drop_vision_last_layer", "bool", True)
    return settings.number("vision_config.num_hidden_layers", _TOWER["num_hidden_layers"]) - bool(dropped)


def _table(settings: Settings) -> Floats:
    """Of all positions: other programs want to find it, and compute it."""
    patch = settings.number("vision_config.patch_size", _TOWER["patch_size"])
    side = settings.number("vision_config.image_size", 980) // patch
    return waves(side, side, settings.number("hidden_size"))


def _is(version: str, config: Mapping[str, object]) -> bool:
    """Whether a config.json is of this version. 2.5 says none, as one before it does, whose text is scaled."""
    told = config.get("version", None if "scale_emb" in config else "2.5")
    return str(told) in (version, version.removesuffix(".0"))


def _rules(version: str, number: int, text: Rules) -> Iterator[Rules]:
    """A text of another family, and the tower."""
    yield replace(text, classes=(_CLASS,), types=(), when=partial(_is, version))
    assumed = {
        "preprocessor.max_slice_nums": SLICES, "preprocessor.slice_mode": True,
        "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", _TOWER["patch_size"]),
        **({"preprocessor.use_image_id": True} if number > FIRST else {}),
    }  # fmt: skip
    yield Rules(
        part="vision",
        architecture="resampler",
        classes=(_CLASS,),
        when=partial(_is, version),
        keys=(
            *projector_keys("resampler", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER, _NAMES),
            constant("clip.minicpmv_version", number, "int32"),
            Key("clip.minicpmv_query_num", "query_num", "int", 64),
            Key("clip.vision.image_size", "preprocessor.scale_resolution|image_size", "int", 448),
            Key("clip.vision.block_count", _layers),
            Key("clip.vision.projection_dim", "hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.image_mean", "preprocessor.norm_mean|preprocessor.image_mean", "floats", [0.5] * 3),
            Key("clip.vision.image_std", "preprocessor.norm_std|preprocessor.image_std", "floats", [0.5] * 3),
        ),
        tensors=(*siglip("vpm"), *_MATRICES),
        made=(ComputedTensor("resampler.pos_embed_k", _table),),
        assumed=assumed,
    )


ENCODERS = {"resampler": MiniCpmVision.load}
RULES = (
    *_rules("2.5", FIRST, TEXT_OF_2_5[0]),
    *_rules("2.6", 3, TEXT_OF_2_6[0]),
    *_rules("4.0", 5, TEXT_OF_2_5[0]),
    *_rules("4.5", 6, TEXT_OF_4_5[0]),
)
