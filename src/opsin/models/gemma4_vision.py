"""Gemma 4: norms around each part and of q, k and v, layers that may clamp, patches that turn by both axes.

A picture is stretched to as many squares of patches as its budget of tokens allows; a square's mean becomes a row.

GGUF: clip.projector_type = "gemma4v". Of ours are two keys: clip.vision.image_max_pixels, where another budget than
280 tokens is usual, and clip.vision.bidirectional, whether a picture's rows see each other in the decoder's layers with
a window, where that does not follow from the decoder's width as it does for published models. Oracle: transformers'
Gemma4ForConditionalGeneration and its processor; max_soft_tokens 70 at low detail and 1120 at high detail. A film is
one run of frames of 70 tokens each, behind their minutes and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File, Value
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.vision_rules import (
    SIZES,
    blocks,
    by_channel,
    by_channel_shape,
    expect,
    normalisation,
    normalisation_keys,
    projector_keys,
    tower_sizes,
)
from opsin.media import sizes
from opsin.media.film import Film
from opsin.media.frames import evenly
from opsin.media.picture import Picture
from opsin.nn.films import Parts, in_one_run
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import ClampedLinear, Linear, RmsNorm
from opsin.nn.pictures import Preparation
from opsin.nn.rope import frequencies, plane_table
from opsin.nn.vit import AttentionSpans, PatchEmbedding, VitShape, attention_spans, plane, vit_shape
from opsin.ops import Array, Ops
from opsin.spans import Patches

BUDGETS = (1120, 560, 280, 140, 70)  # tokens of a picture that the model was trained with
USUAL, POOL = 280, 3
MOST_FRAMES, FRAME = 32, 70  # of a film where nobody says, and tokens of a frame
BASE = 100.0  # of the rope
CAUSAL = (1536, 2560)  # widths of decoders whose pictures' rows see only what is before: E2B, E4B


class Gemma4VisionBlock(Module):
    ln1: RmsNorm
    q: Annotated[ClampedLinear, at("attn_q")]
    k: Annotated[ClampedLinear, at("attn_k")]
    v: Annotated[ClampedLinear, at("attn_v")]
    q_norm: Annotated[RmsNorm, at("attn_q_norm")]
    k_norm: Annotated[RmsNorm, at("attn_k_norm")]
    out: Annotated[ClampedLinear, at("attn_out")]
    attn_post_norm: RmsNorm
    ln2: RmsNorm
    gate: Annotated[ClampedLinear, at("ffn_gate")]
    up: Annotated[ClampedLinear, at("ffn_up")]
    down: Annotated[ClampedLinear, at("ffn_down")]
    ffn_post_norm: RmsNorm

    def check(self, shape: VitShape, inner: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        wide = shape.heads.query * shape.heads.width
        for norm in (self.ln1, self.attn_post_norm, self.ln2, self.ffn_post_norm):
            norm.check(shape.width)
        for norm in (self.q_norm, self.k_norm):
            norm.check(shape.heads.width)
        for matrix in (self.q, self.k, self.v):
            matrix.check(shape.width, wide)
        self.out.check(wide, shape.width)
        self.gate.check(shape.width, inner)
        self.up.check(shape.width, inner)
        self.down.check(inner, shape.width)

    def __call__(self, x: Array, spans: AttentionSpans, table: Array, shape: VitShape) -> Array:
        ops, heads, eps = x.ops, shape.heads, shape.eps
        inner = self.ln1(x, eps)
        q, k, v = (part(inner).reshape(heads.query, heads.width) for part in (self.q, self.k, self.v))
        q, k = (ops.rope(norm(part, eps), table, shape.pairing) for norm, part in ((self.q_norm, q), (self.k_norm, k)))
        v = ops.rms_norm(v, None, eps)
        seen = ops.attend_dense(q, k, v, spans.first, spans.last, scale=1.0, parts=spans.pictures, like=self.out.weight)
        x = x + self.attn_post_norm(self.out(seen.reshape(heads.query * heads.width)), eps)
        inner = self.ln2(x, eps)
        return x + self.ffn_post_norm(self.down(ops.glu(self.gate(inner), self.up(inner), "gelu")), eps)


class Gemma4Tower(Module):
    patch_embd: PatchEmbedding
    blk: list[Gemma4VisionBlock]
    std_bias: Array | None
    std_scale: Array | None


class Projector(Module):
    input_projection: Linear


@dataclass(frozen=True, eq=False, kw_only=True)
class BudgetedVision:
    """What both kinds do with pictures. `usual`: tokens of one. `atomic`: whether its rows see each other."""

    ops: Ops
    preparation: Preparation
    positions: Floats
    usual: int
    atomic: bool
    marker: ClassVar[str] = "<|image|>"

    def layout(self, picture: Picture) -> Patches:
        side, asked = self.preparation.block * self.preparation.patch, picture.budget
        finest = max(BUDGETS[0], self.usual) if asked.detail == "high" else self.usual
        finest = max(finest, next((n for n in BUDGETS[::-1] if n >= (asked.min_image_tokens or 1)), BUDGETS[0]))

        def cost(budget: int) -> tuple[tuple[int, int], int]:
            wide, high = sizes.most_squares(picture.size, side, budget)
            return (wide, high), wide * high // side**2

        ways = sorted({finest, self.usual, *BUDGETS}, reverse=True)
        size, _ = cost(asked.choose([way for way in ways if way <= finest], cost))
        span = self.preparation.stretched(picture, size, "bicubic", atomic=self.atomic)
        return Patches(("<|image>", span, "<image|>"), picture.notes, original=picture.size)

    def film(self, film: Film) -> Parts:
        """A film as one run of frames."""
        frames = replace(self, usual=min(FRAME, self.usual))
        return in_one_run(frames, film, evenly(film, film.choice, most=MOST_FRAMES))


@dataclass(frozen=True, eq=False, kw_only=True)
class Gemma4Vision(BudgetedVision):
    """`positions` [2, side, width]: what is added for a patch's column, and for its row."""

    shape: VitShape
    tower: Gemma4Tower
    projector: Projector

    @classmethod
    def load(cls, file: File, source: Reader) -> Gemma4Vision:
        """Raises ModelError, naming key or tensor, where the parts do not go together."""
        shape = replace(vit_shape(file, "rms", margin=True), pairing="quarters")
        pool = positive_int(file, "clip.vision.projector.scale_factor", POOL)
        square = (shape.patch * pool) ** 2
        usual = usual_tokens(file, square)
        if shape.heads.width % 4 or pool > 16 or not 0 < usual * square <= shape.most_pixels:
            raise ModelError(
                f"{file.path}: heads of {shape.heads.width}, {pool} patches along a square, {usual} tokens a picture",
                hint="the file is damaged",
            )
        tower, projector = Gemma4Tower.read(source, "v"), Projector.read(source, "mm")
        if len(tower.blk) != shape.layers:
            raise ModelError(f"{file.path} holds {len(tower.blk)} of its {shape.layers} layers", hint="incomplete")
        tower.patch_embd.check(shape)
        for block in tower.blk:
            block.check(shape, positive_int(file, "clip.vision.feed_forward_length"))
        for name, vector in (("v.std_bias", tower.std_bias), ("v.std_scale", tower.std_scale)):
            if (tower.std_bias, tower.std_scale) != (None, None) and (vector is None or vector.shape != (shape.width,)):
                raise ModelError(f"{file.path}: {name} is missing, or not {shape.width} values", hint="it is damaged")
        width = positive_int(file, "clip.vision.projection_dim")
        projector.input_projection.check(shape.width, width)
        return cls(
            ops=source.ops, shape=shape, tower=tower, projector=projector, usual=usual,
            preparation=Preparation.of(file, shape.patch, pool), atomic=sees_ahead(file, width),
            positions=read_positions(source, shape.width, max(usual, BUDGETS[0]) * pool),
        )  # fmt: skip

    @property
    def width(self) -> int:
        return self.projector.input_projection.outputs

    def encode(self, features: Floats) -> Array:
        pictures, high, wide, values = features.shape
        ops, shape, block = self.ops, self.shape, self.preparation.block
        places = plane(high, wide, block, pictures)
        positions = self.positions[0, places[:, 1]] + self.positions[1, places[:, 0]]
        given = np.float32(2) * features.reshape(-1, values) - np.float32(1)
        x = self.tower.patch_embd(ops.constant(given), ops.constant(positions))
        turning = frequencies(shape.heads.width // 2, BASE)
        table = plane_table(ops, places[:, ::-1], turning, turning)  # the first pairs turn by column
        spans = attention_spans(ops, [0, high * wide], pictures)
        for layer in self.tower.blk:
            x = layer(x, spans, table, shape)
        return self._project(math.sqrt(shape.width) * ops.mean_rows(x, block**2))

    def _project(self, x: Array) -> Array:
        bias, scale, ops = self.tower.std_bias, self.tower.std_scale, self.ops
        if bias is not None and scale is not None:
            x = (x + -1.0 * bias) * scale
        return self.projector.input_projection(ops.rms_norm(x, None, self.shape.eps))


def usual_tokens(file: File, square: int) -> int:
    """Of a picture, where nothing else is asked for; of so many pixels each."""
    return positive_int(file, "clip.vision.image_max_pixels", USUAL * square) // square


def sees_ahead(file: File, width: int) -> bool:
    """Whether rows of a picture see each other in a decoder of this width."""
    return file.get_bool("clip.vision.bidirectional", width not in CAUSAL)


def read_positions(source: Reader, width: int, longest: int) -> Floats:
    """The tables of columns and of rows, as far as the longest side of a picture goes."""
    name = "v.position_embd.weight"
    table = source.values(name)
    if table.ndim != 3 or table.shape[0] != 2 or table.shape[2] != width or table.shape[1] < longest:
        raise ModelError(f"{name} is {table.shape}; {(2, longest, width)} and more is needed")
    return np.ascontiguousarray(table[:, :longest])


def max_pixels(settings: Settings) -> int | None:
    """Of the usual budget, where it is not the usual one."""
    tokens = settings.number("preprocessor.max_soft_tokens", USUAL)
    side = settings.number("vision_config.patch_size", 16) * settings.number("vision_config.pooling_kernel_size", POOL)
    return tokens * side**2 if tokens != USUAL else None


def bidirectional(settings: Settings) -> bool | None:
    """Said where the decoder's width does not."""
    sees = settings.find("text_config.use_bidirectional_attention") == "vision"
    follows = settings.number("text_config.hidden_size", 2304) not in CAUSAL
    return None if sees == follows else sees


def _check(settings: Settings) -> None:
    heads = settings.number("vision_config.num_attention_heads", 12)
    told = {"num_key_value_heads": heads, "attention_bias": False, "rope_parameters.rope_theta": BASE,
            "rope_parameters.rope_type": "axial", "hidden_activation": "gelu_pytorch_tanh"}  # fmt: skip
    expect(settings, {f"vision_config.{name}": value for name, value in told.items()})


_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16, "num_attention_heads": 12, "patch_size": 16,
    "head_dim": 64,
}  # fmt: skip
_NAMES = {key: name for key, name in SIZES.items() if key != "image_size"} | {"attention.head_dim": "head_dim"}
_NORMS = {
    "input_layernorm": "ln1", "post_attention_layernorm": "attn_post_norm", "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ffn_post_norm", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
_MATRICES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_out", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_BOUNDS = ("input_min", "input_max", "output_min", "output_max")


def _found(file: File) -> Mapping[str, Value]:
    """Files of Ollama's may call the tokenizer by another name than its merges need."""
    kind = file.metadata.get("tokenizer.ggml.model")
    merges = "tokenizer.ggml.merges" in file.metadata
    return {"tokenizer.ggml.model": "gemma4"} if merges and kind not in ("gpt2", "gemma4") else {}


ENCODERS = {"gemma4v": Gemma4Vision.load}
FILMS = {"gemma4v": BudgetedVision.film}
DIALECTS = (
    Dialect(
        architecture="gemma4", becomes="gemma4", projector="gemma4v", found=_found,
        values={**normalisation([0.0] * 3, [1.0] * 3), "clip.vision.image_size": 224, "clip.use_gelu": True},
    ),
)  # fmt: skip
RULES = (
    Rules(
        part="vision",
        architecture="gemma4v",
        classes=("Gemma4ForConditionalGeneration",),
        keys=(
            *projector_keys("gemma4v", "gelu_pytorch_tanh"),
            *tower_sizes(_TOWER, _NAMES),
            *normalisation_keys([0.0] * 3, [1.0] * 3),
            constant("clip.vision.image_size", 224, "int"),  # says nothing, and readers want it
            Key("clip.vision.projection_dim", "text_config.hidden_size", "int", 2304),
            Key("clip.vision.attention.layer_norm_epsilon", "vision_config.rms_norm_eps", "float", 1e-6),
            Key("clip.vision.projector.scale_factor", "vision_config.pooling_kernel_size", "int", POOL),
            Key("clip.vision.image_max_pixels", max_pixels, "int", None),
            Key("clip.vision.bidirectional", bidirectional, "bool", None),
        ),
        tensors=(
            Tensor("vision_tower.patch_embedder.input_proj", "v.patch_embd", by_channel, by_channel_shape),
            Tensor("vision_tower.patch_embedder.position_embedding_table", "v.position_embd.weight", type="F32"),
            Tensor("vision_tower.std_bias", "v.std_bias"),
            Tensor("vision_tower.std_scale", "v.std_scale"),
            *blocks("vision_tower.encoder.layers", _NORMS),
            *blocks("vision_tower.encoder.layers", {f"{name}.linear": ours for name, ours in _MATRICES.items()}),
            *blocks(
                "vision_tower.encoder.layers",
                {f"{name}.{bound}": f"{ours}.{bound}" for name, ours in _MATRICES.items() for bound in _BOUNDS},
            ),
            Tensor("embed_vision.embedding_projection", "mm.input_projection"),
        ),
        check=_check,
        assumed={"preprocessor.resample": 3, "preprocessor.do_normalize": False},
    ),
)
