"""InternVL 2.5, 3 and 3.5: a picture is cut into as many tiles as its shape asks for, and shown once more as a whole.

In the layers of the tower, InternViT, what attention and FFN add is scaled; those of its largest model have RMS norms,
also of q and k. Squares of patches, side by side, go through a norm and two linear layers. The text part is a decoder
of its own file.

llama.cpp puts the class row behind the patches, although their table begins with it, and takes a GELU of tanh; it cuts
other tiles. Here all is as in transformers' class.

GGUF: clip.projector_type = "internvl". Oracle: transformers' InternVLForConditionalGeneration, with its processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.vision_rules import (
    CLIP,
    SIZES,
    blocks,
    expect,
    normalisation_keys,
    part,
    part_shape,
    projector_keys,
    tower_sizes,
)
from opsin.media import sizes, steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.media.sizes import Grid
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.pictures import Preparation, Shared
from opsin.nn.vit import Vit, block_order, vit_shape
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

if TYPE_CHECKING:
    from PIL.Image import Image

START, END = "<img>", "</img>"
LEAST_TILES, MOST_TILES = 1, 12  # where the file does not say
TOO_MANY_TILES = 64
EPS = 1e-5  # of the projector's norm: a number of code, not of any setting


class Projector(Module):
    norm: Annotated[LayerNorm, at("0")]
    up: Annotated[Linear, at("1")]
    down: Annotated[Linear, at("3")]


@dataclass(frozen=True, eq=False)
class InternVlVision:
    """`least` and `most`: tiles of a picture, but for the one that shows all of it."""

    tower: Vit
    projector: Projector
    preparation: Preparation
    least: int
    most: int
    marker: ClassVar[str] = "<IMG_CONTEXT>"

    @classmethod
    def load(cls, file: File, source: Reader) -> InternVlVision:
        shape = vit_shape(file, "layer" if source.has("v.blk.0.ln1.bias") else "rms")
        if shape.activation == "gelu":  # one key for both: this family has the exact one
            shape = replace(shape, activation="gelu_erf")
        fold = positive_int(file, "clip.vision.projector.scale_factor", 2)
        if shape.grid % fold:
            raise ModelError(f"{file.path}: {shape.grid} patches a side are no squares of {fold}")
        least = positive_int(file, "clip.vision.preproc_min_tiles", LEAST_TILES)
        most = positive_int(file, "clip.vision.preproc_max_tiles", max(MOST_TILES, least))
        if not least <= most <= TOO_MANY_TILES:
            raise ModelError(
                f"{file.path}: clip.vision.preproc_min_tiles is {least}, preproc_max_tiles {most}",
                hint="the file is damaged",
            )
        projector = Projector.read(source, "mm.model.mlp")
        projector.norm.check(shape.width * fold**2)
        projector.up.check(shape.width * fold**2, projector.down.inputs)
        projector.down.check(projector.up.outputs, positive_int(file, "clip.vision.projection_dim"))
        tower = Vit.load(file, source, shape, block_order(shape.grid, shape.grid, fold))
        return cls(tower, projector, Preparation.of(file, shape.patch, fold), least, most)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        side = self.tower.shape.side
        columns, rows = picture.budget.choose(self._grids(picture.size), self._cost)
        whole = (columns * side, rows * side)
        steps.check_growth(picture.size, whole)
        areas = sizes.areas(picture.size, (columns, rows)) if columns * rows > 1 else []
        sheet = Shared(lambda: steps.resize(steps.flatten(picture), whole, "bicubic"), len(areas))
        tiles: list[MediaSpan] = []
        for i, area in enumerate(areas):
            corner = (i % columns * side, i // columns * side)
            make = partial(self._prepare, sheet, corner)
            tiles.append(self.preparation.span(picture, "tile", whole, corner, make=make, size=(side, side), area=area))
        overview = self.preparation.stretched(picture, (side, side), "bicubic")
        return Patches((START, *tiles, overview, END), picture.notes, original=picture.size, whole=whole)

    def encode(self, features: Floats) -> Array:
        x = self.tower.without_class(self.tower.whole(features), features)
        x = self.projector.norm(x.ops.fold(x, self.preparation.block**2), EPS)
        return self.projector.down(self.projector.up(x, activation="gelu_erf"))

    def _grids(self, size: Size) -> Iterator[Grid]:
        """Of tiles: the file's own, then those for fewer and fewer, down to one."""
        for most in range(self.most, 0, -1):
            yield sizes.closest_grid(size, self.tower.shape.side, min(self.least, most), most)

    def _cost(self, grid: Grid) -> tuple[Size, int]:
        (columns, rows), shape = grid, self.tower.shape
        tiles, one = columns * rows, (shape.grid // self.preparation.block) ** 2
        return (columns * shape.side, rows * shape.side), (tiles + (tiles > 1)) * one

    def _prepare(self, sheet: Shared[Image], corner: tuple[int, int]) -> Floats:
        (left, top), side = corner, self.tower.shape.side
        return self.preparation.patches(sheet.get().crop((left, top, left + side, top + side)))


_TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SIDES = {"image_size": 448, "patch_size": 14}
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def _side(name: str, settings: Settings) -> object:
    """In pixels; some configurations write it once for each side."""
    told = settings.find(f"vision_config.{name}")
    if isinstance(told, list):
        if len(told) != 2 or told[0] != told[1]:
            raise ModelError(f"{settings.where}: vision_config.{name} is {told!r:.40}", hint="squares are converted")
        told = told[0]
    return _SIDES[name] if told is None else told


def _fold(settings: Settings) -> int:
    ratio = settings.get("downsample_ratio", "float", 0.5)
    assert isinstance(ratio, float)
    if not 0.01 < ratio <= 1:
        raise ModelError(f"{settings.where}: downsample_ratio is {ratio}", hint="mend config.json")
    return int(1 / ratio)


def _check(settings: Settings) -> None:
    expect(settings, {
        "vision_config.hidden_act": "gelu", "projector_hidden_act": "gelu",
        "vision_feature_layer": -1, "vision_feature_select_strategy": "default", "select_layer": -1,
        "vision_config.use_mean_pooling": True, "vision_config.use_absolute_position_embeddings": True,
        "ps_version": "v2", "dynamic_image_size": True, "use_thumbnail": True,
        "force_image_size": _side("image_size", settings),
    })  # fmt: skip
    if settings.find("vision_config.use_qk_norm"):
        expect(settings, {"vision_config.layer_norm_eps": 1e-6})  # those norms of transformers' have no other


def _tiles(least: str, most: str) -> tuple[Key, ...]:
    return (
        Key("clip.vision.preproc_min_tiles", least, "int", LEAST_TILES),
        Key("clip.vision.preproc_max_tiles", most, "int", MOST_TILES),
    )


def _embeddings(row: str, table: str, patch: str) -> tuple[Tensor, ...]:
    """Of the class row, of positions, and of patches, by their names in a checkpoint."""
    return (
        Tensor(row, "v.class_embd", lambda values, _: values.reshape(-1), lambda shape, _: shape[-1:]),
        Tensor(table, "v.position_embd.weight", lambda values, _: values[0], lambda shape, _: shape[1:], type="F32"),
        Tensor(patch, "v.patch_embd"),
    )


def _rules(
    name: str, keys: Sequence[Key], tensors: Sequence[Tensor], assumed: Mapping[str, object] | None = None
) -> Rules:
    return Rules(
        part="vision",
        architecture="internvl",
        classes=(name,),
        keys=(
            *projector_keys("internvl", "gelu"),
            *tower_sizes(_TOWER, {key: path for key, path in SIZES.items() if key not in _SIDES}),
            *(Key(f"clip.vision.{side}", partial(_side, side)) for side in _SIDES),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", _fold),
            *keys,
        ),
        tensors=tuple(tensors),
        check=_check,
        assumed=assumed or {},
    )


ENCODERS = {"internvl": InternVlVision.load}
RULES = (
    _rules(
        "InternVLForConditionalGeneration",
        keys=(
            *normalisation_keys(*CLIP),
            Key("clip.vision.projection_dim", "text_config.hidden_size"),
            *_tiles("preprocessor.min_patches", "preprocessor.max_patches"),
        ),
        tensors=(
            *_embeddings(
                "vision_tower.embeddings.cls_token",
                "vision_tower.embeddings.position_embeddings",
                "vision_tower.embeddings.patch_embeddings.projection",
            ),
            *blocks("vision_tower.encoder.layer", {
                "layernorm_before": "ln1", "layernorm_after": "ln2", "lambda_1": "ls1.weight", "lambda_2": "ls2.weight",
                "attention.projection_layer": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
                **{f"attention.{name}_proj": f"attn_{name}" for name in "qkv"},
                **{f"attention.{name}_norm": f"attn_{name}_norm" for name in "qk"},
            }),
            Tensor("multi_modal_projector.layer_norm", "mm.model.mlp.0"),
            Tensor("multi_modal_projector.linear_1", "mm.model.mlp.1"),
            Tensor("multi_modal_projector.linear_2", "mm.model.mlp.3"),
        ),
        assumed={
            "preprocessor.resample": 3,
            "preprocessor.size.height": partial(_side, "image_size"),
            "preprocessor.size.width": partial(_side, "image_size"),
        },
    ),
    # As the models' own code, which transformers does not have, saves it; it asks no file how pictures are prepared.
    _rules(
        "InternVLChatModel",
        keys=(
            constant("clip.vision.image_mean", _IMAGENET[0], "floats"),
            constant("clip.vision.image_std", _IMAGENET[1], "floats"),
            Key("clip.vision.projection_dim", "llm_config.hidden_size"),
            *_tiles("min_dynamic_patch", "max_dynamic_patch"),
        ),
        tensors=(
            *_embeddings(
                "vision_model.embeddings.class_embedding",
                "vision_model.embeddings.position_embedding",
                "vision_model.embeddings.patch_embedding",
            ),
            *blocks("vision_model.encoder.layers", {
                "norm1": "ln1", "norm2": "ln2", "ls1": "ls1.weight", "ls2": "ls2.weight", "attn.proj": "attn_out",
                "attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
            }),
            *(Tensor("vision_model.encoder.layers.{n}.attn.qkv", f"v.blk.{{n}}.attn_{name}", part(i, 3), part_shape(3))
              for i, name in enumerate("qkv")),
            *(Tensor(f"mlp1.{i}", f"mm.model.mlp.{i}") for i in (0, 1, 3)),
        ),
    ),
)  # fmt: skip
