"""PaddleOCR-VL: ERNIE 4.5 with positions of three axes, and a tower that reads pages of any size.

The tower is SigLIP's, whose patches turn by row and column; its table of positions is stretched to each picture, and
2 x 2 patches side by side become a row.

GGUF: general.architecture = "paddleocr", clip.projector_type = "paddleocr". Oracle: transformers'
PaddleOCRVLForConditionalGeneration, with its image processor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Tensor
from opsin.gguf.text_rules import pre_norm_rules
from opsin.gguf.vision_rules import CLIP, normalisation_keys, projector_keys, siglip, tower_sizes
from opsin.media import sizes
from opsin.media.limits import Size
from opsin.models.qwen2vl import Qwen2VlVision as PageVision
from opsin.models.qwen2vl import pixel_keys, prepare, sections
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.position_tables import stretched
from opsin.nn.vit import MOST_ROWS, Vit, block_order, vit_shape
from opsin.ops import Array

LEAST, MOST = 384 * 384, 1536 * 1536  # pixels: transformers' defaults, where the file does not say
EPS = 1e-5  # of the projector's norm


class Projector(Module):
    norm: Annotated[LayerNorm, at("input_norm")]
    up: Annotated[Linear, at("1")]
    down: Annotated[Linear, at("2")]


@dataclass(frozen=True, eq=False, kw_only=True)
class PaddleOcrVision(PageVision):
    """`positions` [side * side, width] are stretched to each picture."""

    projector: Projector  # type: ignore[assignment]
    positions: Floats
    marker: ClassVar[str] = "<|IMAGE_PLACEHOLDER|>"

    def begin(self, size: Size, side: int) -> Size:
        return sizes.at_least(size, side)

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, _ = features.shape
        order = block_order(high, wide, self.preparation.block)
        positions = self.tower.ops.constant(stretched(self.positions, high, wide, "linear")[order])
        sight = self.sight(pictures, self._order(high, wide))
        return self.merge(self.tower.run(self.tower.embed(features, positions), *sight))

    def merge(self, x: Array) -> Array:
        normed = self.projector.norm(self.tower.finish(x), EPS)
        folded = x.ops.fold(normed, self.preparation.block**2)
        return self.projector.down(self.projector.up(folded, activation="gelu_erf"))


def load_vision(file: File, source: Reader) -> PaddleOcrVision:
    """Raises ModelError, naming key or tensor, for parts that do not go together."""
    shape = vit_shape(file, margin=True)
    preparation, least, most = prepare(file, shape, LEAST, MOST)
    projector, square = Projector.read(source, "mm"), preparation.block**2
    projector.norm.check(shape.width)
    projector.up.check(shape.width * square, projector.down.inputs)
    projector.down.check(projector.up.outputs, positive_int(file, "clip.vision.projection_dim"))
    return PaddleOcrVision(
        tower=Vit.load(file, source, shape), projector=projector, preparation=preparation, least=least, most=most,
        positions=square_table(source, shape.width),
    )  # fmt: skip


def square_table(source: Reader, width: int) -> Floats:
    """The table of positions of a square of any side. Raises ModelError for another."""
    name = "v.position_embd.weight"
    table = source.values(name)
    if table.ndim != 2 or table.shape[1] != width or not 0 < table.shape[0] <= MOST_ROWS or table.shape[0] ** 0.5 % 1:
        raise ModelError(f"{name} is {table.shape}, where a square of rows of {width} values is needed")
    return table


_TOWER = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
DECODERS = {"paddleocr": partial(PreNormDecoder.load, prefix="paddleocr", pairing="halves", mrope=True)}
ENCODERS = {"paddleocr": load_vision}
RULES = (
    replace(
        pre_norm_rules(
            "paddleocr", ("PaddleOCRVLForConditionalGeneration",), ("paddleocr_vl_text",), sections(16, 24, 24)
        ),
        defaults={
            "vocab_size": 103424, "max_position_embeddings": 131072, "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        },
    ),
    Rules(
        part="vision",
        architecture="paddleocr",
        classes=("PaddleOCRVLForConditionalGeneration",),
        assumed={
            "preprocessor.resample": 3, "preprocessor.merge_size": 2, "preprocessor.temporal_patch_size": 1,
            "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 14),
        },
        keys=(
            *projector_keys("paddleocr", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER),
            *normalisation_keys(*CLIP),
            *pixel_keys(LEAST, MOST),
            Key("clip.vision.projection_dim", "text_config.hidden_size|hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.layer_norm_eps", "float", 1e-6),
            Key("clip.vision.spatial_merge_size", "vision_config.spatial_merge_size", "int", 2),
        ),
        tensors=(
            *siglip("visual.vision_model"),
            Tensor("mlp_AR.pre_norm", "mm.input_norm"),
            Tensor("mlp_AR.linear_1", "mm.1"),
            Tensor("mlp_AR.linear_2", "mm.2"),
        ),
        dropped=("visual.vision_model.head.*", "visual.vision_model.embeddings.packing_position_embedding.*"),
    ),
)  # fmt: skip
