"""Gemma 4 12B: squares of pixels become the rows of a picture at once, without a tower; all else as in Gemma 4.

A square is normed, multiplied and normed again, its column and its row are added, and it is normed once more.

GGUF: clip.projector_type = "gemma4uv", with the keys of Gemma 4 that are ours. Oracle: transformers'
Gemma4UnifiedForConditionalGeneration, with Gemma 4's processor, whose squares are as large, and its masks: that class
lets a picture's rows see each other in all layers; here, as in llama.cpp, they do in those with a window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Shape, Tensor, constant
from opsin.gguf.vision_rules import normalisation_keys, projector_keys
from opsin.models.gemma4 import RULES as TEXT
from opsin.models.gemma4_vision import (
    BUDGETS,
    POOL,
    BudgetedVision,
    bidirectional,
    max_pixels,
    read_positions,
    sees_ahead,
    usual_tokens,
)
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.pictures import Preparation
from opsin.nn.vit import plane
from opsin.ops import Array

EPS = 1e-5  # of the norms: torch's own
LARGEST = 1024  # pixels along a square, at most


class Squares(Module):
    first: Annotated[LayerNorm, at("v.patch_norm.1")]
    embedding: Annotated[Linear, at("v.patch_embd")]
    second: Annotated[LayerNorm, at("v.patch_norm.2")]
    third: Annotated[LayerNorm, at("v.patch_norm.3")]
    projection: Annotated[Linear, at("mm.input_projection")]

    def check(self, values: int, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        inner = self.embedding.outputs
        self.first.check(values)
        self.embedding.check(values, inner)
        self.second.check(inner)
        self.third.check(inner)
        self.projection.check(inner, width)


@dataclass(frozen=True, eq=False, kw_only=True)
class SquareVision(BudgetedVision):
    """`positions` [2, side, width]: what is added for a square's column, and for its row."""

    weights: Squares
    eps: float

    @classmethod
    def load(cls, file: File, source: Reader) -> Self:
        """Raises ModelError, naming key or tensor, where the parts do not go together."""
        side = positive_int(file, "clip.vision.patch_size")
        side *= positive_int(file, "clip.vision.projector.scale_factor", POOL)
        if side > LARGEST:
            raise ModelError(f"{file.path}: clip.vision.patch_size makes squares of {side} pixels", hint="damaged")
        usual, width = usual_tokens(file, side**2), positive_int(file, "clip.vision.projection_dim")
        if not 0 < usual <= 16 * BUDGETS[0]:
            raise ModelError(f"{file.path}: clip.vision.image_max_pixels makes {usual} tokens", hint="it is damaged")
        weights = Squares.read(source)
        weights.check(3 * side**2, width)
        return cls(
            ops=source.ops, preparation=Preparation.of(file, side), usual=usual, atomic=sees_ahead(file, width),
            positions=read_positions(source, weights.embedding.outputs, max(usual, BUDGETS[0])), weights=weights,
            eps=positive_float(file, "clip.vision.attention.layer_norm_epsilon", 1e-6),
        )  # fmt: skip

    @property
    def width(self) -> int:
        return self.weights.projection.outputs

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, values = features.shape
        w, ops, places = self.weights, self.ops, plane(high, wide, 1, pictures)
        positions = self.positions[0, places[:, 1]] + self.positions[1, places[:, 0]]
        x = w.embedding(w.first(ops.constant(features.reshape(-1, values)), EPS))
        x = w.third(w.second(x, EPS) + ops.constant(positions), EPS)
        return w.projection(ops.rms_norm(x, None, self.eps))


def _by_channel(values: Floats, settings: Settings) -> Floats:
    """The last axis, pixel by pixel in checkpoints, channel by channel."""
    return np.ascontiguousarray(values.reshape(*values.shape[:-1], -1, 3).swapaxes(-1, -2)).reshape(values.shape)


def _turned(values: Floats, settings: Settings) -> Floats:
    return np.ascontiguousarray(values.swapaxes(0, 1))


def _turned_shape(shape: Shape, settings: Settings) -> Shape:
    return (shape[1], shape[0], *shape[2:])


_PATH = "vision_embedder"
_PATCH = Key("clip.vision.patch_size", "vision_config.patch_size", "int", 16)
ENCODERS = {"gemma4uv": SquareVision.load}
FILMS = {"gemma4uv": SquareVision.film}
RULES = (
    replace(
        TEXT[0],
        classes=("Gemma4UnifiedForConditionalGeneration",),
        types=("gemma4_unified_text",),
        keys=(*TEXT[0].keys, constant("{arch}.embedding_length_per_layer_input", 0, "int")),
        defaults={**TEXT[0].defaults, "max_position_embeddings": 262144, "sliding_window": 1024},
    ),
    Rules(
        part="vision",
        architecture="gemma4uv",
        classes=("Gemma4UnifiedForConditionalGeneration",),
        keys=(
            *projector_keys("gemma4uv", "gelu_pytorch_tanh"),
            *normalisation_keys([0.0] * 3, [1.0] * 3),
            _PATCH,
            Key("clip.vision.embedding_length", "vision_config.mm_embed_dim", "int", 3840),
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 2304),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.rms_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", "vision_config.pooling_kernel_size", "int", POOL),
            Key("clip.vision.image_max_pixels", max_pixels, "int", None),
            Key("clip.vision.bidirectional", bidirectional, "bool", None),
            constant("clip.vision.image_size", 224, "int"),  # says nothing, as what follows, and readers want it
            *(constant(f"clip.vision.{name}", 0, "int")
              for name in ("block_count", "feed_forward_length", "attention.head_count")),
        ),
        tensors=(
            Tensor(f"{_PATH}.patch_ln1", "v.patch_norm.1", _by_channel),
            Tensor(f"{_PATH}.patch_dense.weight", "v.patch_embd.weight", _by_channel),
            Tensor(f"{_PATH}.patch_dense.bias", "v.patch_embd.bias"),
            Tensor(f"{_PATH}.patch_ln2", "v.patch_norm.2"),
            Tensor(f"{_PATH}.pos_norm", "v.patch_norm.3"),
            Tensor(f"{_PATH}.pos_embedding", "v.position_embd.weight", _turned, _turned_shape, type="F32"),
            Tensor("embed_vision.embedding_projection", "mm.input_projection"),
        ),
        assumed={"preprocessor.resample": 3, "preprocessor.do_normalize": False},
    ),
)  # fmt: skip
