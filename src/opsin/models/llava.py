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
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import CLIP, expect, normalisation_keys, projector_keys, siglip, tower_sizes
from opsin.media import sizes, steps
from opsin.media.picture import Picture
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation
from opsin.nn.vit import Vit, attention_spans, vit_shape
from opsin.ops import Array
from opsin.spans import Area, Patches


class Projector(Module):
    up: Annotated[Linear, at("0")]
    down: Annotated[Linear, at("2")]


@dataclass(frozen=True, eq=False)
class LlavaVision:
    """`layers` are run; `padded` pictures become squares, others lose what is outside of their middle square."""

    tower: Vit
    projector: Projector
    preparation: Preparation
    layers: int
    padded: bool
    marker: ClassVar[str] = "<image>"

    @classmethod
    def load(cls, file: File, source: Reader) -> LlavaVision:
        if file.get_str("clip.vision.mm_patch_merge_type", "flat") != "flat":
            raise ModelError(
                f"{file.path} cuts pictures into tiles, as LLaVA 1.6 does", hint="of this family, 1.5 is supported"
            )
        shape = vit_shape(file)
        projector = Projector.read(source, "mm")
        projector.up.check(shape.width, projector.down.inputs)
        # The oldest files give CLIP's own projection_dim, which is not used: the width is that of the last matrix.
        projector.down.check(projector.up.outputs, projector.down.outputs)
        tower = Vit.load(file, source, shape, np.arange(shape.grid**2, dtype=np.int32))
        padded = file.get_str("clip.vision.image_aspect_ratio", "square") == "pad"
        return cls(tower, projector, Preparation.of(file, shape.patch), layers_of(file, shape.layers), padded)

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
        tower, ops = self.tower, self.tower.ops
        pictures, rows = len(features), tower.rows(features)
        x = tower.run(tower.embed(features), [attention_spans(ops, [0, rows], pictures)] * self.layers)
        x = tower.without_class(x, features)
        return self.projector.down(self.projector.up(x, activation="gelu_erf"))

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
        image = steps.flatten(picture)
        if self.padded:
            red, green, blue = (int(value * 255) for value in self.preparation.mean)
            image = steps.pad_to_square(image, (red, green, blue))
        side = self.tower.shape.side
        image = steps.centre_crop(steps.resize(image, size, "bicubic"), (side, side))
        return self.preparation.patches(image)


def layers_of(file: File, stored: int) -> int:
    """How many layers are run: told as the number of the state that is taken, 0 being the first layer's input."""
    key = "clip.vision.feature_layer"
    told = file.get_ints(key, [stored]).tolist()
    if len(told) != 1:
        raise ModelError(f"{file.path}: {key} is {told}", hint="states of several layers are not supported")
    layer = told[0] if told[0] >= 0 else stored + 1 + told[0]
    if not 0 < layer <= stored:
        raise ModelError(f"{file.path}: {key} is {told[0]}, of {stored} layers", hint="the file is damaged")
    return int(layer)


_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip


def _layers(settings: Settings) -> list[int]:
    """The state that is taken, counted from the first layer's input."""
    told, layers = settings.find("vision_feature_layer"), settings.number("vision_config.num_hidden_layers", 12)
    told = -2 if told is None else told
    if not isinstance(told, int) or not -layers - 1 <= told <= layers:
        raise ModelError(f"{settings.where}: vision_feature_layer is {told!r:.40}", hint="one layer is converted")
    return [told if told >= 0 else layers + 1 + told]


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
            Key("clip.vision.feature_layer", _layers, "ints"),
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
