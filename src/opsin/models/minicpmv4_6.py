"""MiniCPM-V 4.6: slices as those of 4.5, whose patches are merged twice instead of looked at by queries.

Behind one of the tower's layers each 2 x 2 patches look at each other and become one, which the layers behind it see;
at the end 2 x 2 of these become a row. Files may leave the first of both out, and have four times as many rows. The
text is Qwen 3.5's, with positions of one axis.

GGUF: clip.projector_type = "minicpmv4_6"; clip.vision.wa_layer_indexes names the layer. Oracle: transformers'
MiniCPMV4_6ForConditionalGeneration, with its processor. llama.cpp writes no numbers of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.vision_rules import SIZES, expect, normalisation_keys, projector_keys, siglip, tower_sizes
from opsin.media.limits import Size
from opsin.models.minicpmv import SLICES, SlicedVision
from opsin.models.paddleocr import square_table
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.pictures import Preparation
from opsin.nn.vit import Norm, Vit, VitAttention, VitShape, attention_spans, block_order, vit_shape
from opsin.ops import Array

WINDOW = 2  # patches along a square that is merged, each time
EPS = 1e-6  # of the last merger's norm: a number of code, not of any setting
NUMBERED = 6  # a version whose pictures are counted: what `SlicedVision` asks


class WindowMerger(Module):
    """Squares of patches, each of which becomes its mean and what a network adds to it."""

    ln1: Norm
    attn: Annotated[VitAttention, at("")]
    norm: Annotated[Norm, at("ds_ln")]
    up: Annotated[Linear, at("ds_ffn_up")]
    down: Annotated[Linear, at("ds_ffn_down")]

    def check(self, shape: VitShape) -> None:
        """Raises ModelError, naming the tensor, where something does not fit the shape."""
        square = shape.width * WINDOW**2
        self.ln1.check(shape.width)
        self.attn.check_in(shape)
        self.norm.check(square)
        self.up.check(square, self.down.inputs)
        self.down.check(self.up.outputs, shape.width)

    def __call__(self, x: Array, shape: VitShape, pictures: int, rows: int) -> Array:
        """x [pictures * rows, width], square after square -> a quarter of the rows."""
        ops, spans = x.ops, attention_spans(x.ops, range(0, rows + 1, WINDOW**2), pictures)
        x = self.attn(self.ln1(x, shape), spans, None, shape, x)
        inner = self.up(self.norm(ops.fold(x, WINDOW**2), shape), activation="gelu")
        return self.down(inner, ops.mean_rows(x, WINDOW**2))


class LastMerger(Module):
    norm: Annotated[LayerNorm, at("input_norm")]
    up: Linear
    down: Linear

    def check(self, inputs: int, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.norm.check(inputs)
        self.up.check(inputs, inputs)
        self.down.check(inputs, width)

    def __call__(self, x: Array) -> Array:
        folded = self.norm(x.ops.fold(x, WINDOW**2), EPS)
        return self.down(self.up(folded, activation="gelu_erf"))


@dataclass(frozen=True, eq=False)
class MergingVision(SlicedVision):
    """`first` merges behind the layer of the number `behind`, where the file has it."""

    first: WindowMerger | None
    behind: int
    last: LastMerger
    marker: ClassVar[str] = "<|image_pad|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> MergingVision:
        """Raises ModelError, naming key or tensor, for parts that do not go together."""
        shape, merge = vit_shape(file), positive_int(file, "clip.vision.projector.scale_factor", WINDOW**2)
        if merge not in (WINDOW, WINDOW**2):
            raise ModelError(f"{file.path}: clip.vision.projector.scale_factor is {merge}", hint="2 and 4 are known")
        first = WindowMerger.read(source, "v.vit_merger") if merge > WINDOW else None
        listed = file.get_ints("clip.vision.wa_layer_indexes") if first is not None else np.zeros(1, np.int64)
        if len(listed) != 1 or not 0 <= listed[0] < shape.layers:
            raise ModelError(
                f"{file.path}: clip.vision.wa_layer_indexes is {listed[:8].tolist()}, of {shape.layers} layers",
                hint="the file is damaged",
            )
        if first is not None:
            first.check(shape)
        last = LastMerger.read(source, "mm")
        last.check(shape.width * WINDOW**2, positive_int(file, "clip.vision.projection_dim"))
        tower, table = Vit.load(file, source, shape), square_table(source, shape.width)
        if tower.extra:
            raise ModelError(f"{file.path}: v.class_embd is a row beside the patches, and nobody looks at it")
        preparation, factor = Preparation.of(file, shape.patch), shape.patch * merge
        return cls(tower, preparation, table, NUMBERED, factor, first, int(listed[0]), last)

    @property
    def width(self) -> int:
        return self.last.down.outputs

    def rows(self, size: Size) -> int:
        return size[0] * size[1] // self.factor**2

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, values = features.shape
        tower, order = self.tower, _order(high, wide, twice=self.first is not None)
        positions = tower.ops.constant(self.positions[self._places(high, wide)[order]])
        x = tower.embed(features.reshape(pictures, high * wide, values)[:, order], positions)
        counts = [high * wide, high * wide // (WINDOW**2 if self.first is not None else 1)]
        before, after = (attention_spans(tower.ops, [0, count], pictures) for count in counts)
        spans = [before if layer <= self.behind else after for layer in range(tower.shape.layers)]
        for layer, (block, visible) in enumerate(zip(tower.weights.blk, spans, strict=False)):
            x = block(x, visible, None, tower.shape)
            if layer == self.behind and self.first is not None:
                x = self.first(x, tower.shape, pictures, high * wide)
        return self.last(tower.finish(x))


def _order(high: int, wide: int, *, twice: bool) -> Ints:
    """Patches of a raster square after square; where squares are merged as well, those of a square together."""
    order = block_order(high, wide, WINDOW)
    if not twice:
        return order
    squares = block_order(high // WINDOW, wide // WINDOW, WINDOW)
    return order.reshape(-1, WINDOW**2)[squares].reshape(-1)


def _merge(settings: Settings) -> int:
    mode = settings.get("preprocessor.downsample_mode|downsample_mode", "str", "16x")
    if mode not in ("4x", "16x"):
        raise ModelError(f"{settings.where}: downsample_mode is {mode!r:.40}", hint="4x and 16x are known")
    return WINDOW if mode == "4x" else WINDOW**2


def _behind(settings: Settings) -> list[int] | None:
    told = settings.get("insert_layer_id|vision_config.insert_layer_id", "int", 6)
    assert isinstance(told, int)
    return [told] if _merge(settings) > WINDOW else None


def _check(settings: Settings) -> None:
    expect(settings, {
        "merger_times": 1, "merge_kernel_size": [WINDOW] * 2, "vision_config.window_kernel_size": [WINDOW] * 2,
        "drop_vision_last_layer": False,
    })  # fmt: skip


_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16,
}  # fmt: skip
_FIRST = {
    "layer_norm1": "ln1", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "pre_norm": "ds_ln", "linear_1": "ds_ffn_up", "linear_2": "ds_ffn_down",
}  # fmt: skip
ENCODERS = {"minicpmv4_6": MergingVision.load}
RULES = (
    Rules(
        part="vision",
        architecture="minicpmv4_6",
        classes=("MiniCPMV4_6ForConditionalGeneration",),
        keys=(
            *projector_keys("minicpmv4_6", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER, {key: path for key, path in SIZES.items() if key != "image_size"}),
            *normalisation_keys([0.5] * 3, [0.5] * 3),
            Key("clip.vision.image_size", "preprocessor.scale_resolution", "int", 448),
            Key("clip.vision.projection_dim", "text_config.hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", _merge),
            Key("clip.vision.wa_layer_indexes", _behind, "ints", None),
        ),
        tensors=(
            *siglip("vision_tower"),
            *(Tensor(f"vision_tower.vit_merger.{theirs}", f"v.vit_merger.{ours}") for theirs, ours in _FIRST.items()),
            Tensor("merger.mlp.0.pre_norm", "mm.input_norm"),
            Tensor("merger.mlp.0.linear_1", "mm.up"),
            Tensor("merger.mlp.0.linear_2", "mm.down"),
        ),
        check=_check,
        assumed={
            "preprocessor.resample": 3, "preprocessor.max_slice_nums": SLICES, "preprocessor.slice_mode": True,
            "preprocessor.use_image_id": True,
            "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 16),
        },
    ),
)  # fmt: skip
