"""LLaVA 1.5: CLIP's patches, from a layer before its last, through two linear layers.

GGUF: clip.projector_type = "mlp"; the oldest files name no projector. Those that name no layer hold only the layers
that are run. The text part is a decoder of its own file. Oracle: transformers' LlavaForConditionalGeneration, with
CLIP's processor, or LLaVA's own where the file says that pictures are padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.media import sizes, steps
from opsin.media.picture import Picture
from opsin.nn.keys import positive_int
from opsin.nn.module import Floats, Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Preparation
from opsin.nn.vit import Vit, sight, vit_shape
from opsin.ops import Array
from opsin.spans import Area, Features, MediaSpan, Patches


class Projector(Module):
    up: Linear = at("0")  # type: ignore[assignment]
    down: Linear = at("2")  # type: ignore[assignment]


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
        projector.down.check(projector.up.outputs, positive_int(file, "clip.vision.projection_dim"))
        tower = Vit.load(file, source, shape, np.arange(shape.grid**2, dtype=np.int32))
        padded = file.get_str("clip.vision.image_aspect_ratio", "square") == "pad"
        return cls(tower, projector, Preparation.of(file, shape.patch), layers_of(file, shape.layers), padded)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, picture: Picture) -> Patches:
        shape = self.tower.shape
        size, area = self._cut(picture)
        steps.check_growth(picture.size, (max(picture.size),) * 2 if self.padded else size)
        span = MediaSpan(
            digest=self.preparation.digest(picture, "pad" if self.padded else "crop", size),
            rows=shape.grid**2,
            positions=shape.grid**2,
            grid=(shape.grid, shape.grid),
            features=Features((shape.grid**2, shape.values), partial(self._prepare, picture, size)),
            size=(shape.side, shape.side),
            area=area,
        )
        return Patches((span,), picture.notes, original=picture.size)

    def encode(self, features: Floats) -> Array:
        pictures, patches = features.shape[:2]
        tower, ops = self.tower, self.tower.ops
        rows = patches + tower.extra
        x = tower.run(tower.embed(features), [sight(ops, [0, rows], pictures)] * self.layers)
        if tower.extra:
            kept = np.arange(pictures)[:, None] * rows + np.arange(tower.extra, rows)
            x = ops.take(x, ops.constant(kept.reshape(-1).astype(np.int32)))
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
        return self.preparation.patches(steps.centre_crop(steps.resize(image, size, "bicubic"), (side, side)))


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


ENCODERS = {"mlp": LlavaVision, "": LlavaVision}
