"""Qwen2-VL and Qwen2.5-VL: the text decoder of Qwen 2 with positions of three axes, time, row and column (M-RoPE).

Their towers take pictures of any size: positions turn (2-D RoPE), and 2 x 2 patches side by side become a row. In most
layers of Qwen2.5-VL's, patches see only those of their window.

GGUF: general.architecture = "qwen2vl", clip.projector_type = "qwen2vl_merger" or "qwen2.5vl_merger". Oracles:
transformers' Qwen2VLForConditionalGeneration and Qwen2_5_VLForConditionalGeneration, with their image processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File, Value
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.text_rules import pre_norm_rules
from opsin.gguf.vision_rules import (
    CLIP,
    blocks,
    normalisation,
    normalisation_keys,
    part,
    part_shape,
    projector_keys,
    tower_sizes,
)
from opsin.media import sizes
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.films import on_time_axis
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation
from opsin.nn.rope import frequencies, plane_table
from opsin.nn.vit import AttentionSpans, NormKind, Vit, VitShape, attention_spans, plane, vit_shape
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

MERGE, WINDOW = 2, 112  # patches along a side of a row's square, pixels of a window's; where the file does not say
LEAST, MOST = 56 * 56, 28 * 28 * 1280  # pixels: transformers' defaults, where the file does not say
BASE, PACE = 10000.0, 2.0  # the latter: published models' positions a second


class Projector(Module):
    up: Annotated[Linear, at("0")]
    down: Annotated[Linear, at("2")]


@dataclass(frozen=True, eq=False)
class Order:
    """How the patches of one picture stand: window after window, squares of patches in each, patches in each square.

    Attributes:
        patches: for each patch as it stands, its number among patches that stand square after square.
        places: [patches, 2] its row and column.
        windows: where windows begin, and the end.
        rows: for each row of the result, from left to right and down, the square that becomes it.
    """

    patches: Ints
    places: Ints
    windows: list[int]
    rows: Ints

    @classmethod
    def of(cls, high: int, wide: int, merge: int, window: int) -> Order:
        """Of high x wide patches; `window` squares are a side of a window, and 0 of them the whole picture."""
        down, across = high // merge, wide // merge
        row, column = np.divmod(np.arange(down * across), across)
        number = row // window * -(-across // window) + column // window if window else np.zeros_like(row)
        squares = np.argsort(number, kind="stable")
        count = merge * merge
        patches = (squares[:, None] * count + np.arange(count)).reshape(-1)
        places = plane(high, wide, merge, 1)[patches]
        windows = np.append(0, np.cumsum(np.bincount(number)) * count)
        return cls(patches, places, windows.tolist(), np.argsort(squares).astype(np.int32))


@dataclass(frozen=True, eq=False)
class Qwen2VlVision:
    """`window`: patches along a window's side, 0 for none. `whole`: of so many layers the last sees everything.

    `pace`: positions that a second of a film takes on the axis of time; 0 for one each moment.
    """

    tower: Vit
    projector: Projector
    preparation: Preparation
    least: int
    most: int
    window: int = 0
    whole: int = 1
    pace: float = 0.0
    marker: ClassVar[str] = "<|image_pad|>"

    @classmethod
    def load(
        cls, file: File, source: Reader, norm: NormKind = "layer", *, window: int = 0, whole: int = 1,
        least: int = LEAST, most: int = MOST,
    ) -> Qwen2VlVision:  # fmt: skip
        """A tower with this kind of norms; `window` in pixels. `least` and `most` count where the file has none."""
        shape = vit_shape(file, norm)
        preparation, least, most = prepare(file, shape, least, most)
        merge = preparation.block
        projector = Projector.read(source, "mm")
        projector.up.check(shape.width * merge**2, projector.down.inputs)
        projector.down.check(projector.up.outputs, positive_int(file, "clip.vision.projection_dim"))
        squares = max(1, window // shape.patch // merge) if window else 0
        return cls(Vit.load(file, source, shape), projector, preparation, least, most, squares, whole)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        shape, merge = self.tower.shape, self.preparation.block
        side, ceiling = shape.patch * merge, shape.most_pixels
        bounds = picture.budget.pixels(side**2, self.least, self.most, ceiling=ceiling)
        sizes.check_shape(picture.size)
        size = sizes.fit_pixels(self.begin(picture.size, side), side, *bounds)
        return Patches((self.shown(picture, size),), picture.notes, original=picture.size)

    def shown(self, picture: Picture, size: Size) -> MediaSpan:
        """The rows of a picture that is processed at this size."""
        return self.preparation.stretched(
            picture, size, "bicubic", self.window, arrange=self._arrange, positions=self.positions_of(size)
        )  # fmt: skip

    def positions_of(self, size: Size) -> int | None:
        """How far the position counter moves for a picture of this size: as many as its longer side has rows."""
        return max(size) // self.tower.shape.patch // self.preparation.block

    def begin(self, size: Size, side: int) -> Size:
        """What a picture's size counts as, whose rows are squares of `side` pixels: itself."""
        return size

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        tower, order = self.tower, self._order(high, wide)
        x = self.merge(tower.run(tower.embed(features), *self.sight(pictures, order)))
        if not self.window:
            return x
        starts = np.arange(pictures, dtype=np.int32)[:, None] * len(order.rows)
        return tower.ops.take(x, tower.ops.constant((starts + order.rows).reshape(-1)))

    def sight(self, pictures: int, order: Order) -> tuple[list[AttentionSpans], Array]:
        """What patches see in each layer, and the table by which they turn."""
        shape, ops = self.tower.shape, self.tower.ops
        everything = attention_spans(ops, [0, len(order.patches)], pictures)
        windows = attention_spans(ops, order.windows, pictures) if self.window else everything
        seen = [windows if (i + 1) % self.whole else everything for i in range(shape.layers)]
        turning = frequencies(shape.heads.width // 2, BASE)
        return seen, plane_table(ops, np.tile(order.places, (pictures, 1)), turning, turning)

    def merge(self, x: Array) -> Array:
        """Patches after the last layer [patches, width] -> [squares of them, width of the decoder]."""
        folded = x.ops.fold(self.tower.finish(x), self.preparation.block**2)
        return self.projector.down(self.projector.up(folded, activation="gelu_erf"))

    def _order(self, high: int, wide: int) -> Order:
        return Order.of(high, wide, self.preparation.block, self.window)

    def _arrange(self, patches: Floats, size: tuple[int, int]) -> Floats:
        wide, high = (side // self.tower.shape.patch for side in size)
        return patches[self._order(high, wide).patches]


def prepare(
    file: File, shape: VitShape, least: int, most: int, merge: str = "spatial_merge_size"
) -> tuple[Preparation, int, int]:
    """How pictures become squares of patches that turn by row and column; with the least and the most pixels.

    `least` and `most` count where the file has none, `merge` names the key of a square's side. Raises ModelError for
    numbers that do not go together.
    """
    if shape.heads.width % 4:
        raise ModelError(f"{file.path}: a head of {shape.heads.width} values does not turn by rows and columns")
    side = positive_int(file, f"clip.vision.{merge}", MERGE)
    least = positive_int(file, "clip.vision.image_min_pixels", least)
    most = positive_int(file, "clip.vision.image_max_pixels", max(most, least))
    if least > most or most > shape.most_pixels:
        raise ModelError(
            f"{file.path}: clip.vision.image_min_pixels is {least}, image_max_pixels {most}",
            hint="the file is damaged",
        )
    return Preparation.of(file, shape.patch, side), least, most


def load_second(file: File, source: Reader) -> Qwen2VlVision:
    """The tower of Qwen2.5-VL."""
    whole = positive_int(file, "clip.vision.n_wa_pattern")
    window = positive_int(file, "clip.vision.window_size", WINDOW)
    pace = positive_float(file, "clip.vision.tokens_per_second", PACE)
    return replace(Qwen2VlVision.load(file, source, "rms", window=window, whole=whole), pace=pace)


def sections(*default: int) -> Key:
    """Pairs of time, rows and columns, and none of a fourth axis."""

    def find(settings: Settings) -> list[int]:
        found = settings.get("rope_parameters.mrope_section|rope_scaling.mrope_section", "ints", [*default])
        assert isinstance(found, list)
        return [*found, *[0] * (4 - len(found))]

    return Key("{arch}.rope.dimension_sections", find, "ints")


def pixel_keys(least: int, most: int) -> tuple[Key, ...]:
    """How many pixels a picture has at least and at most, and these where nothing is said."""
    return (
        Key("clip.vision.image_min_pixels", "preprocessor.min_pixels|preprocessor.size.shortest_edge", "int", least),
        Key("clip.vision.image_max_pixels", "preprocessor.max_pixels|preprocessor.size.longest_edge", "int", most),
    )


_TOWER = {"patch_size": 14, "depth": 32, "num_heads": 16, "embed_dim": 1280, "spatial_merge_size": 2}
_SECOND_TOWER = {**_TOWER, "hidden_size": 3584, "intermediate_size": 3420, "window_size": WINDOW}
SIZES = {"patch_size": "patch_size", "block_count": "depth", "attention.head_count": "num_heads",
         "spatial_merge_size": "spatial_merge_size"}  # fmt: skip
_SHARED_KEYS = (
    *normalisation_keys(*CLIP),
    constant("clip.vision.image_size", 560, "int"),  # of no meaning, but llama.cpp wants one
    constant("clip.vision.attention.layer_norm_epsilon", 1e-6, "float"),
    Key("clip.vision.projection_dim", "text_config.hidden_size|hidden_size"),
    *pixel_keys(LEAST, MOST),
)


def _moment(number: int) -> Tensor:
    """The kernel of one of two moments, of [width, 3, 2, patch, patch]."""

    def change(values: Floats, settings: Settings) -> Floats:
        return np.ascontiguousarray(values[:, :, number])

    target = "v.patch_embd.weight" + (".1" if number else "")
    return Tensor("visual.patch_embed.proj.weight", target, change, lambda shape, _: (*shape[:2], *shape[3:]))


MOMENTS = (_moment(0), _moment(1))
_BLOCK = {"norm1": "ln1", "norm2": "ln2", "attn.proj": "attn_out"}
_SHARED_TENSORS = (
    *MOMENTS,
    *(Tensor("visual.blocks.{n}.attn.qkv", f"v.blk.{{n}}.attn_{name}", part(i, 3), part_shape(3))
      for i, name in enumerate("qkv")),
    Tensor("visual.merger.ln_q", "v.post_ln"),
    Tensor("visual.merger.mlp.0", "mm.0"), Tensor("visual.merger.mlp.2", "mm.2"),
)  # fmt: skip


def _inner(settings: Settings) -> int:
    return settings.number("vision_config.embed_dim", 1280) * settings.number("vision_config.mlp_ratio", 4)


def _pattern(settings: Settings) -> int:
    """Of so many layers the last sees the whole picture. Raises ModelError for layers that are not regular."""
    told = settings.get("vision_config.fullatt_block_indexes", "ints", [7, 15, 23, 31])
    assert isinstance(told, list)
    depth, period = settings.number("vision_config.depth", 32), told[0] + 1 if told else 0
    if period < 1 or told != list(range(period - 1, depth, period)):
        raise ModelError(
            f"{settings.where}: vision_config.fullatt_block_indexes is {told!r:.60}", hint="GGUF says a period"
        )
    return period


LOOK = {
    "preprocessor.resample": 3, "preprocessor.merge_size": lambda s: s.number("vision_config.spatial_merge_size", 2),
    "preprocessor.temporal_patch_size": 2,
}  # fmt: skip
_LOOK = {**LOOK, "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 14)}


def _found(file: File) -> Mapping[str, Value]:
    """What files of Ollama's say in other ways."""
    found: dict[str, Value] = {}
    if "qwen2vl.rope.mrope_section" in file.metadata:
        sections = file.get_ints("qwen2vl.rope.mrope_section").astype(np.int32)
        found["qwen2vl.rope.dimension_sections"] = np.append(sections, np.zeros(4, np.int32))[:4]
    if "clip.projector_type" not in file.metadata:
        return found
    if "v.blk.0.ffn_up.weight" in file.tensors:
        found["clip.vision.feed_forward_length"] = file.tensors["v.blk.0.ffn_up.weight"].shape[0]
    whole = file.get_ints("clip.vision.fullatt_block_indexes", [7, 15, 23, 31])
    depth, period = file.get_int("clip.vision.block_count"), int(whole[0]) + 1 if whole.size else 0
    if period < 1 or len(whole) != depth // period or ((whole + 1) % period).any() or (np.diff(whole) != period).any():
        said = f"clip.vision.fullatt_block_indexes is {whole[:8].tolist()}"
        raise ModelError(f"{file.path}: {said}", hint="each layer of a period is supported")
    return found | {"clip.vision.n_wa_pattern": period}


DECODERS = {"qwen2vl": partial(PreNormDecoder.load, prefix="qwen2vl", pairing="halves", mrope=True)}
ENCODERS = {"qwen2vl_merger": Qwen2VlVision.load, "qwen2.5vl_merger": load_second}
FILMS = dict.fromkeys(ENCODERS, on_time_axis)
DIALECTS = (
    Dialect(
        architecture="qwen25vl",
        becomes="qwen2vl",
        projector="qwen2.5vl_merger",
        values={**normalisation(*CLIP), "clip.use_silu": True, "clip.vision.image_size": 560},
        found=_found,
        tensors={
            "patch_embd_0": "patch_embd", "patch_embd_1.weight": "patch_embd.weight.1", "v.merger.ln_q": "v.post_ln",
            "v.merger.mlp": "mm",
        },
    ),
)  # fmt: skip
RULES = (
    pre_norm_rules(
        "qwen2vl",
        ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
        ("qwen2_vl_text", "qwen2_5_vl_text"),
        sections(16, 24, 24),
    ),
    Rules(
        part="vision",
        architecture="qwen2vl_merger",
        classes=("Qwen2VLForConditionalGeneration",),
        assumed=_LOOK,
        keys=(
            *projector_keys("qwen2vl_merger", "quick_gelu"),
            *tower_sizes(_TOWER, {**SIZES, "embedding_length": "embed_dim"}),
            *_SHARED_KEYS,
            Key("clip.vision.feed_forward_length", _inner),
        ),
        tensors=(*_SHARED_TENSORS, *blocks("visual.blocks", {**_BLOCK, "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"})),
    ),
    Rules(
        part="vision",
        architecture="qwen2.5vl_merger",
        classes=("Qwen2_5_VLForConditionalGeneration",),
        assumed=_LOOK,
        keys=(
            *projector_keys("qwen2.5vl_merger", "silu"),
            *tower_sizes(
                _SECOND_TOWER,
                {
                    **SIZES,
                    "embedding_length": "hidden_size",
                    "window_size": "window_size",
                    "feed_forward_length": "intermediate_size",
                },
            ),
            *_SHARED_KEYS,
            Key("clip.vision.n_wa_pattern", _pattern),
            Key("clip.vision.tokens_per_second", "vision_config.tokens_per_second", "float", 4.0),
        ),
        tensors=(
            *_SHARED_TENSORS,
            *blocks("visual.blocks", _BLOCK | {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}),
        ),
    ),
)
