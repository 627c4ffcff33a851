"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR: GLM 4 or 4.5 with positions of three axes, and a tower after that of Qwen 2.5 VL.

Patches turn by row and column and see all others; GLM-4.1V's have a norm and a table of positions as well, which is
stretched to each picture by cubics, GLM-OCR's norms of the heads of q and k. A kernel makes a row of 2 x 2 patches,
a gated network ends it.

GGUF: the text's architecture with sections of M-RoPE, clip.projector_type = "glm4v".
Oracles: transformers' Glm4vForConditionalGeneration, Glm4vMoeForConditionalGeneration and
GlmOcrForConditionalGeneration, with their image processor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import FileError, ModelError
from opsin.gguf import File, Value
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Change, Key, Rules, Settings, Tensor
from opsin.gguf.text_rules import HEADS, KV_HEADS, turned
from opsin.gguf.vision_rules import CLIP, blocks, normalisation_keys, projector_keys, tower_sizes
from opsin.media import sizes
from opsin.media.limits import Size
from opsin.models.glm4 import RULES as TEXT
from opsin.models.glm4moe import RULES as MIXTURE
from opsin.models.paddleocr import square_table
from opsin.models.qwen2vl import MOMENTS, SIZES, prepare, sections
from opsin.models.qwen2vl import Qwen2VlVision as PageVision
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear, Reordered, RmsNorm
from opsin.nn.position_tables import stretched
from opsin.nn.vit import Vit, block_order, vit_shape
from opsin.ops import Array

LEAST, MOST = 112 * 112 // 2, 28 * 28 * 15000 // 2  # pixels: transformers' defaults, which count a picture twice
EPS = 1e-5  # of the merger's norm


class Downsample(Reordered):
    """A kernel of 2 x 2 patches as a matrix over them, patch after patch; files hold it value after value."""

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = super().read(source, path)
        part.bias = source.ops.constant(source.values(f"{path}.bias").reshape(-1))
        return part

    @staticmethod
    def reorder(values: Floats) -> Floats:
        outputs, inputs = values.shape
        if inputs % 4:
            raise ModelError(f"mm.patch_merger.weight has {inputs} inputs, where four patches are needed")
        return values.reshape(outputs, inputs // 4, 4).swapaxes(1, 2).reshape(outputs, inputs)


class Merger(Module):
    kernel: Annotated[Downsample, at("patch_merger")]
    fc: Annotated[Linear, at("model.fc")]
    norm: Annotated[LayerNorm, at("post_norm")]
    gate: Linear
    up: Linear
    down: Linear

    def check(self, inputs: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        inner = self.gate.outputs if self.gate.outputs == self.up.outputs else self.down.inputs  # two of three agree
        self.kernel.check(inputs, outputs)
        self.fc.check(outputs, outputs)
        self.norm.check(outputs)
        self.gate.check(outputs, inner)
        self.up.check(outputs, inner)
        self.down.check(inner, outputs)

    def __call__(self, squares: Array) -> Array:
        """[rows, values of four patches] -> [rows, width of the decoder]."""
        x = squares.ops.activate(self.norm(self.fc(self.kernel(squares)), EPS), "gelu_erf")
        return self.down(x.ops.glu(self.gate(x), self.up(x), "silu"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Glm4vVision(PageVision):
    """`positions` [side * side, width], where there are any, are stretched to each picture."""

    projector: Merger  # type: ignore[assignment]
    norm: RmsNorm | None
    positions: Floats | None
    marker: ClassVar[str] = "<|image|>"

    def begin(self, size: Size, side: int) -> Size:
        return sizes.both_at_least(size, side)

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, values = features.shape
        tower, ops, order = self.tower, self.tower.ops, block_order(high, wide, self.preparation.block)
        x = tower.weights.patch_embd(ops.constant(features.reshape(-1, values)), None)
        if self.norm is not None:
            x = self.norm(x, tower.shape.eps)
        if self.positions is not None:
            table = stretched(self.positions, high, wide, "cubic")[order]
            x = x + ops.constant(np.tile(table, (pictures, 1)))
        return self.merge(tower.run(x, *self.sight(pictures, self._order(high, wide))))

    def merge(self, x: Array) -> Array:
        return self.projector(x.ops.fold(self.tower.finish(x), self.preparation.block**2))


def load_vision(file: File, source: Reader) -> Glm4vVision:
    """Raises ModelError, naming key or tensor, for parts that do not go together."""
    shape = vit_shape(file, "rms", margin=True)
    preparation, least, most = prepare(file, shape, LEAST, MOST)
    if preparation.block != 2:
        raise ModelError(f"{file.path}: clip.vision.spatial_merge_size is {preparation.block}, where 2 is needed")
    projector = Merger.read(source, "mm")
    projector.check(4 * shape.width, positive_int(file, "clip.vision.projection_dim"))
    norm, positions = None, None
    if any(map(source.has, ("v.norm_embd.weight", "v.position_embd.weight"))):  # a tower has both, or neither
        norm, positions = RmsNorm.read(source, "v.norm_embd"), square_table(source, shape.width)
        norm.check(shape.width)
    return Glm4vVision(
        tower=Vit.load(file, source, shape), projector=projector, preparation=preparation, least=least, most=most,
        norm=norm, positions=positions,
    )  # fmt: skip


def _halves(heads: str) -> Change:
    """Rows of each head that turn, from neighbouring pairs to two halves; `heads` is a setting's path."""

    def change(values: Floats, settings: Settings) -> Floats:
        count, turning = settings.number(heads), turned(settings)
        if len(values) % count or turning > len(values) // count or turning % 2:
            raise FileError(f"{settings.where}: {len(values)} rows are no {count} heads", hint="mend config.json")
        split = values.reshape(count, len(values) // count, *values.shape[1:])
        pairs = [split[:, :turning:2], split[:, 1:turning:2], split[:, turning:]]
        return np.concatenate(pairs, axis=1).reshape(values.shape)

    return change


def _pixels(name: str, path: str, default: int) -> Key:
    """A bound; the processor counts each picture twice."""
    return Key(f"clip.vision.image_{name}_pixels", lambda s: s.number(f"preprocessor.size.{path}", 2 * default) // 2)


def _inner(settings: Settings) -> int:
    """Of a layer's network; GLM-4.1V says another's under its name."""
    ocr = settings.find("model_type") == "glm_ocr"
    return settings.number("vision_config.intermediate_size" if ocr else "vision_config.out_hidden_size", 4096)


_CLASSES = ("Glm4vForConditionalGeneration", "Glm46VForConditionalGeneration", "GlmOcrForConditionalGeneration")
_MIXTURE = ("Glm4vMoeForConditionalGeneration",)
_TURNED = {"self_attn.q_proj": _halves(HEADS), "self_attn.k_proj": _halves(KV_HEADS)}
_TOWER = {"image_size": 336, "patch_size": 14, "depth": 24, "num_heads": 12, "hidden_size": 1536,
          "spatial_merge_size": 2}  # fmt: skip
_BLOCK = {
    "norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_PARTS = {
    "post_conv_layernorm": "v.norm_embd", "post_layernorm": "v.post_ln", "merger.proj": "mm.model.fc",
    "merger.post_projection_norm": "mm.post_norm", "merger.gate_proj": "mm.gate", "merger.up_proj": "mm.up",
    "merger.down_proj": "mm.down",
}  # fmt: skip
_TEXT = "glm4"


def _found(file: File) -> dict[str, Value]:
    """What follows from keys of Ollama's: sections and the part of a head that turns, and pixels counted twice."""
    turning, key = file.get_float("glm4.rope.partial_rotary_factor", 1.0), "glm4.attention.key_length"
    if not 0 < turning <= 1:
        raise ValueError(f"glm4.rope.partial_rotary_factor is {turning}")
    found: dict[str, Value] = {
        "glm4.rope.dimension_count": int(positive_int(file, key) * turning),
        "tokenizer.ggml.pre": "chatglm-bpe",  # old ones say another
    }
    for bound in ("min", "max"):
        told = file.get_int(f"clip.vision.{bound}_pixels", 0)
        if told:
            found[f"clip.vision.image_{bound}_pixels"] = told // 2
    return found


DIALECTS = (
    Dialect(
        architecture="glmocr", becomes=_TEXT, projector="glm4v", found=_found,
        keys={
            "rope.mrope_section": "rope.dimension_sections",
            "vision.intermediate_size": "clip.vision.feed_forward_length",
            "vision.out_hidden_size": "clip.vision.projection_dim",
            "vision.attention.layer_norm_rms_epsilon": "clip.vision.attention.layer_norm_epsilon",
        },
        values={"clip.use_silu": True},
        tensors={"patch_embd_0": "patch_embd", "patch_embd_1.weight": "patch_embd.weight.1"},
        text={
            "attn_out": "attn_output", "post_attn_norm": "post_attention_norm", "post_ffn_norm": "post_ffw_norm",
        },
    ),
)  # fmt: skip
ENCODERS = {"glm4v": load_vision}
RULES = (
    replace(
        TEXT[0],
        classes=_CLASSES,
        types=("glm4v_text", "glm_ocr_text"),
        guesses=True,
        keys=(*TEXT[0].keys, Key("{arch}.rope.dimension_count", turned), sections(8, 12, 12)),
        tensors=tuple(
            replace(rule, change=_TURNED.get(rule.source.removeprefix("layers.{n}."))) for rule in TEXT[0].tensors
        ),
        defaults={
            "vocab_size": 151552, "max_position_embeddings": 32768, "hidden_size": 4096, "intermediate_size": 13696,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        },
    ),
    replace(  # whose heads have two halves that turn already
        MIXTURE[0],
        classes=_MIXTURE,
        types=("glm4v_moe_text",),
        keys=(*MIXTURE[0].keys, sections(8, 12, 12)),
        defaults={
            "vocab_size": 151424, "max_position_embeddings": 65536, "hidden_size": 4096, "intermediate_size": 10944,
            "num_hidden_layers": 46, "num_attention_heads": 96, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
            "moe_intermediate_size": 1408, "num_experts_per_tok": 8, "n_routed_experts": 128,
        },
    ),
    Rules(
        part="vision",
        architecture="glm4v",
        classes=(*_CLASSES, *_MIXTURE),
        assumed={
            "preprocessor.resample": 3, "preprocessor.merge_size": 2, "preprocessor.temporal_patch_size": 2,
            "preprocessor.patch_size": lambda s: s.number("vision_config.patch_size", 14),
        },
        keys=(
            *projector_keys("glm4v", "silu"),
            *tower_sizes(_TOWER, {**SIZES, "embedding_length": "hidden_size", "image_size": "image_size"}),
            *normalisation_keys(*CLIP),
            _pixels("min", "shortest_edge", LEAST),
            _pixels("max", "longest_edge", MOST),
            Key("clip.vision.feed_forward_length", _inner),
            Key("clip.vision.projection_dim", "text_config.hidden_size|hidden_size"),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.rms_norm_eps", "float", 1e-5),
        ),
        tensors=(
            *MOMENTS,
            Tensor("visual.patch_embed.proj.bias", "v.patch_embd.bias"),
            Tensor("visual.embeddings.position_embedding", "v.position_embd", type="F32"),
            Tensor("visual.downsample", "mm.patch_merger", plain=True),
            *(Tensor(f"visual.{theirs}", ours) for theirs, ours in _PARTS.items()),
            *blocks("visual.blocks", _BLOCK),
        ),
    ),
)  # fmt: skip
