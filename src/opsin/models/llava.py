"""LLaVA 1.5: CLIP's patches, from a layer before its last, through two linear layers.

GGUF: clip.projector_type = "mlp"; the oldest files name no projector. Those that name no layer hold only the layers
that are run. The text part is a decoder of its own file. Oracle: transformers' LlavaForConditionalGeneration, with
CLIP's processor, or LLaVA's own where the file says that pictures are padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import (
    CLIP,
    expect,
    feature_states,
    normalisation_keys,
    projector_keys,
    siglip,
    tower_sizes,
)
from opsin.media import sizes, steps
from opsin.media.picture import Picture
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation
from opsin.nn.states import feature_layers, select
from opsin.nn.vit import Vit, vit_shape
from opsin.ops import Array
from opsin.spans import Area, Patches

PINPOINTS, NEWLINES = "clip.vision.image_grid_pinpoints", ("v.image_newline", "model.image_newline")


class Projector(Module):
    up: Annotated[Linear, at("0")]
    down: Annotated[Linear, at("2")]

    def check(self, inputs: int) -> None:
        """Raises ModelError, naming the tensor, where something does not fit."""
        self.up.check(inputs, self.down.inputs)
        # The oldest files give CLIP's own projection_dim, which is not used: the width is that of the last matrix.
        self.down.check(self.up.outputs, self.down.outputs)

    def __call__(self, x: Array) -> Array:
        return self.down(self.up(x, activation="gelu_erf"))


@dataclass(frozen=True, eq=False)
class LlavaVision:
    """States are taken after `layers`; `padded` pictures become squares, others lose all but their middle one."""

    tower: Vit
    projector: Projector
    preparation: Preparation
    layers: tuple[int, ...]
    padded: bool
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> LlavaVision | None:
        """None where a file shows pictures in tiles, as LLaVA 1.6 does."""
        if is_tiled(file):
            return None
        shape = vit_shape(file)
        layers = feature_layers(file, shape.layers)
        projector = Projector.read(source, "mm")
        projector.check(shape.width * len(layers))
        tower = Vit.load(file, source, shape, np.arange(shape.grid**2, dtype=np.int32))
        padded = file.get_str("clip.vision.image_aspect_ratio", "square") == "pad"
        return cls(tower, projector, Preparation.of(file, shape.patch), layers, padded)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        side, (size, area) = self.tower.shape.side, self._cut(picture)
        steps.check_growth(picture.size, (max(picture.size),) * 2 if self.padded else size)
        make = partial(self._prepare, picture, size)
        way = "pad" if self.padded else "crop"
        span = self.preparation.span(picture, way, size, make=make, size=(side, side), area=area)
        return Patches((span,), picture.notes, original=picture.size)

    def encode(self, features: Floats) -> Array:
        return self.projector(select(self.tower, features, self.layers))

    def _cut(self, picture: Picture) -> tuple[tuple[int, int], Area]:
        """The size before the middle square is taken, and what that shows of the picture."""
        side, (width, height) = self.tower.shape.side, picture.size
        if self.padded:
            left, top = -((max(picture.size) - width) // 2), -((max(picture.size) - height) // 2)
            return (side, side), (left, top, left + max(picture.size), top + max(picture.size))
        wide, high = sizes.shortest_edge(picture.size, side)
        left, top = (wide - side) // 2, (high - side) // 2
        across, down = width / wide, height / high
        return (wide, high), (left * across, top * down, (left + side) * across, (top + side) * down)

    def _prepare(self, picture: Picture, size: tuple[int, int]) -> Floats:
        image = self.preparation.squared(picture) if self.padded else steps.flatten(picture)
        side = self.tower.shape.side
        image = steps.centre_crop(steps.resize(image, size, "bicubic"), (side, side))
        return self.preparation.patches(image)


def is_tiled(file: File) -> bool:
    """Whether pictures are cut into tiles, which are merged. Where the oldest files do not say so, they show it."""
    merge = file.get_str("clip.vision.mm_patch_merge_type", "")
    return merge != "flat" if merge else PINPOINTS in file.metadata or any(name in file.tensors for name in NEWLINES)


_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip


def _ratio(settings: Settings) -> str | None:
    return "pad" if settings.find("preprocessor.do_pad") is True else None


def _check(settings: Settings) -> None:
    expect(settings, {"vision_feature_select_strategy": "default", "projector_hidden_act": "gelu"})


ENCODERS = {"mlp": LlavaVision.load, "": LlavaVision.load}
RULES = (
    Rules(
        part="vision",
        architecture="mlp",
        classes=("LlavaForConditionalGeneration",),
        types=("clip_vision_model",),
        keys=(
            *projector_keys("mlp", "quick_gelu"),
            *tower_sizes(_TOWER),
            *normalisation_keys(*CLIP),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 4096),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-5),
            Key("clip.vision.feature_layer", partial(feature_states, default=-2), "ints"),
            Key("clip.vision.image_aspect_ratio", _ratio, "str", None),
        ),
        tensors=(
            *(rule for rule in siglip("vision_tower") if rule.target != "v.post_ln"),
            Tensor("multi_modal_projector.linear_1", "mm.0"),
            Tensor("multi_modal_projector.linear_2", "mm.2"),
        ),
        dropped=("vision_tower.post_layernorm",),  # of the last layer, which is not run; llama.cpp would apply it
        check=_check,
        assumed={
            "preprocessor.resample": 3,
            "preprocessor.do_center_crop": True,
            **{
                f"preprocessor.{path}": lambda s: s.number("vision_config.image_size", 224)
                for path in ("crop_size.height", "crop_size.width", "size.shortest_edge")
            },
        },  # fmt: skip
    ),
)
