"""dots.ocr: Qwen 2.5, and a tower that reads pages of any size, which took that of Qwen 2.5 VL on.

Patches turn by row and column and see all others; 2 x 2 of them, with a norm of each, become a row. Positions in the
decoder have one axis.

GGUF: clip.projector_type = "dots_ocr", beside a text of Qwen 2.5. Oracle: the published definition in float64, as
transformers has no class, with Qwen 2 VL's image processor and transformers' text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Tensor, constant
from opsin.gguf.vision_rules import CLIP, blocks, normalisation_keys, projector_keys, tower_sizes
from opsin.media.limits import Size
from opsin.models.qwen2 import RULES as TEXT
from opsin.models.qwen2vl import Qwen2VlVision as PageVision
from opsin.models.qwen2vl import pixel_keys, prepare
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear, RmsNorm
from opsin.nn.vit import Vit, vit_shape
from opsin.ops import Array

LEAST, MOST = 56 * 56, 3360 * 3360  # pixels: those of the published model, where the file does not say
EPS = 1e-6  # of the projector's norm


class Projector(Module):
    last: Annotated[RmsNorm, at("post_norm")]  # of the tower
    norm: Annotated[LayerNorm, at("input_norm")]
    up: Annotated[Linear, at("0")]
    down: Annotated[Linear, at("2")]


@dataclass(frozen=True, eq=False)
class DotsOcrVision(PageVision):
    projector: Projector  # type: ignore[assignment]
    marker: ClassVar[str] = "<|imgpad|>"

    def positions_of(self, size: Size) -> int | None:
        return None

    def merge(self, x: Array) -> Array:
        projector = self.projector
        normed = projector.norm(projector.last(x, self.tower.shape.eps), EPS)
        folded = x.ops.fold(normed, self.preparation.block**2)
        return projector.down(projector.up(folded, activation="gelu_erf"))


def load_vision(file: File, source: Reader) -> DotsOcrVision:
    """Raises ModelError, naming key or tensor, for parts that do not go together."""
    shape = vit_shape(file, "rms", margin=True, sized=False)
    preparation, least, most = prepare(file, shape, LEAST, MOST, merge="projector.scale_factor")
    projector, square = Projector.read(source, "mm"), preparation.block**2
    projector.last.check(shape.width)
    projector.norm.check(shape.width)
    projector.up.check(shape.width * square, projector.down.inputs)
    projector.down.check(projector.up.outputs, positive_int(file, "clip.vision.projection_dim"))
    return DotsOcrVision(Vit.load(file, source, shape), projector, preparation, least, most)


_TOWER = {"patch_size": 14, "hidden_size": 1536, "intermediate_size": 4224, "num_hidden_layers": 42,
          "num_attention_heads": 12, "spatial_merge_size": 2}  # fmt: skip
_SIZES = {
    "patch_size": "patch_size", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers", "attention.head_count": "num_attention_heads",
    "projector.scale_factor": "spatial_merge_size",
}  # fmt: skip
_BLOCK = {
    "norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "mlp.fc1": "ffn_gate",
    "mlp.fc3": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
_PARTS = {
    "patch_embed.patchifier.proj": "v.patch_embd", "patch_embed.patchifier.norm": "v.pre_ln",
    "post_trunk_norm": "mm.post_norm", "merger.ln_q": "mm.input_norm", "merger.mlp.0": "mm.0", "merger.mlp.2": "mm.2",
}  # fmt: skip
ENCODERS = {"dots_ocr": load_vision}
RULES = (
    replace(TEXT[0], classes=("DotsOCRForCausalLM",), types=()),
    Rules(
        part="vision",
        architecture="dots_ocr",
        classes=("DotsOCRForCausalLM",),
        assumed={
            "preprocessor.resample": 3, "preprocessor.temporal_patch_size": 1,
            "preprocessor.merge_size": lambda s: s.number("vision_config.spatial_merge_size", 2),
            "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 14),
        },
        keys=(
            *projector_keys("dots_ocr", "silu"),
            *tower_sizes(_TOWER, _SIZES),
            *normalisation_keys(*CLIP),
            *pixel_keys(LEAST, MOST),
            constant("clip.vision.image_size", 0, "int"),
            Key("clip.vision.projection_dim", "hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.rms_norm_eps", "float", 1e-5),
        ),
        tensors=(
            *(Tensor(f"vision_tower.{theirs}", ours) for theirs, ours in _PARTS.items()),
            *blocks("vision_tower.blocks", _BLOCK),
        ),
    ),
)  # fmt: skip
