"""LFM2: short convolutions in most layers, attention in the others, a norm before each part, SwiGLU.

A convolution looks back to a few rows, each channel by itself, between two gates.

GGUF: general.architecture = "lfm2". Oracle: transformers' Lfm2ForCausalLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Tensor, flat, flat_shape
from opsin.gguf.text_rules import KEYS
from opsin.nn.attention import Heads, SelfAttention, heads_of
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.decoder import DecoderWeights, OverWeights
from opsin.nn.delta import Taps
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, RmsNorm
from opsin.nn.rope import rope_of
from opsin.ops import Array

STATE = "conv"
MOST_STEPS = 64  # of a convolution; published ones have 3


class ShortConv(Module):
    in_proj: Linear
    conv: Taps
    out_proj: Linear

    def check(self, width: int, steps: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.in_proj.check(width, 3 * width)
        self.out_proj.check(width, width)
        if self.conv.weight.shape != (steps, width):
            raise ModelError(f"{self.conv.tensor('weight')} is no {width} channels of {steps} steps")

    def __call__(self, x: Array, batch: Batch, layer: int, residual: Array) -> Array:
        """x [rows, width] -> the same shape; `layer` counts those with a convolution."""
        assert batch.runs is not None
        width, parts = x.width, self.in_proj(x)
        before, after, values = (parts[:, i * width : (i + 1) * width] for i in range(3))
        seen = x.ops.conv_state(before * values, self.conv.weight, batch.states[STATE], layer, batch.runs)
        return self.out_proj(after * seen, residual)


class NormedAttention(SelfAttention):
    attn_q_norm: RmsNorm
    attn_k_norm: RmsNorm


class Lfm2Block(Module):
    """`mixer` is what a layer has instead of the other kind's."""

    attn_norm: RmsNorm
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]
    _mixer: NormedAttention | ShortConv

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part, conv = super().read(source, path), f"{path}.shortconv"
        part._mixer = ShortConv.read(source, conv) if source.below(conv) else NormedAttention.read(source, path)
        return part

    @property
    def mixer(self) -> NormedAttention | ShortConv:
        return self._mixer


class Lfm2Weights(DecoderWeights):
    output_norm: Annotated[RmsNorm, at("token_embd_norm")]
    blk: list[Lfm2Block]


@dataclass(frozen=True, eq=False)
class Lfm2(OverWeights):
    """`numbers`: of each layer among those of its kind."""

    weights: Lfm2Weights
    heads: Heads
    steps: int
    window: int
    eps: float
    context: int
    frequencies: Array
    rope_scale: float
    numbers: tuple[int, ...]
    axes: int = 1

    @classmethod
    def load(cls, file: File, source: Reader) -> Lfm2:
        weights = Lfm2Weights.read(source)
        weights.check(file, "lfm2", weights.blk)
        kinds = [isinstance(block.mixer, ShortConv) for block in weights.blk]
        heads = heads_of(file, "lfm2", kv=_kv_heads(file, kinds))
        steps = positive_int(file, "lfm2.shortconv.l_cache")
        if not 2 <= steps <= MOST_STEPS:
            raise ModelError(f"{file.path}: lfm2.shortconv.l_cache is {steps}", hint="the file is damaged")
        for block in weights.blk:  # a cache is made for these heads before anything runs
            if isinstance(block.mixer, ShortConv):
                block.mixer.check(weights.width, steps)
            else:
                block.mixer.check(heads)
        rope, window = rope_of(file, "lfm2", heads.width), "lfm2.attention.sliding_window"
        return cls(
            weights=weights,
            heads=heads,
            steps=steps,
            window=positive_int(file, window) if file.get_int(window, 0) else 0,
            eps=positive_float(file, "lfm2.attention.layer_norm_rms_epsilon"),
            context=positive_int(file, "lfm2.context_length"),
            frequencies=source.ops.constant(rope.frequencies),
            rope_scale=rope.scale,
            numbers=tuple(kinds[:i].count(kind) for i, kind in enumerate(kinds)),
        )

    @property
    def _convolutions(self) -> int:
        return sum(isinstance(block.mixer, ShortConv) for block in self.weights.blk)

    @property
    def groups(self) -> dict[str, GroupShape]:
        layers = len(self.weights.blk) - self._convolutions
        return {"self": GroupShape(layers, self.heads.kv, self.heads.width, self.window)}

    @property
    def states(self) -> Mapping[str, StateShape]:
        return {STATE: StateShape(self._convolutions, (self.steps - 1, self.width))}

    def hidden(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = tap("embed", batch.overlay(w.token_embd(batch.ids)))
        table = x.ops.rope_table(batch.positions, self.frequencies, self.rope_scale)
        for i, block in enumerate(w.blk):
            x = self._block(block, x, batch.in_layer(i, len(w.blk)), i, table)
        return tap("norm", w.output_norm(x, self.eps))

    def _block(self, block: Lfm2Block, x: Array, batch: Batch, layer: int, table: Array) -> Array:
        normed, number = block.attn_norm(x, self.eps), self.numbers[layer]
        if isinstance(block.mixer, ShortConv):
            x = batch.going_on(block.mixer(normed, batch, number, residual=x))
        else:
            x = block.mixer(
                normed, batch, layer=number, heads=self.heads, rope=table, pairing="halves", eps=self.eps,
                name=f"blk.{layer}.attn", residual=x,
            )  # fmt: skip
        x = block.ffn(block.ffn_norm(x, self.eps), "silu", residual=x)
        return batch.tap(f"blk.{layer}.out", x)


def _kv_heads(file: File, kinds: list[bool]) -> int:
    """KV heads of the layers with attention; files say 0 of the others. `kinds`: which are convolutions."""
    key = "lfm2.attention.head_count_kv"
    told = file.get_ints(key)
    known = set(told[told != 0].tolist())
    if len(told) != len(kinds) or len(known) != 1 or min(known) < 0 or [count == 0 for count in told.tolist()] != kinds:
        raise ModelError(f"{file.path}: {key} is {told[:8].tolist()}, with convolutions in {sum(kinds)} layers",
                         hint="the file is damaged, or of a kind that is not supported")  # fmt: skip
    return int(known.pop())


def _types(settings: Settings) -> list[bool]:
    """Which layers have attention."""
    listed, layers = settings.find("layer_types"), settings.number("num_hidden_layers")
    if isinstance(listed, list):
        return [kind != "conv" for kind in listed]
    whole = settings.find("full_attn_idxs")
    return [not isinstance(whole, list) or i in whole for i in range(layers)]


def _inner(settings: Settings) -> int:
    """Width of the FFN, which config.json tells before it is made smaller and rounded."""
    told = settings.number("block_ff_dim|intermediate_size")
    if settings.find("block_auto_adjust_ff_dim") is False:
        return told
    share, step = settings.get("block_ffn_dim_multiplier", "float", 1.0), settings.number("block_multiple_of", 256)
    assert isinstance(share, float)
    return -(-int(share * int(2 * told / 3)) // step) * step


_LAYER = {
    "operator_norm": "attn_norm", "ffn_norm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output", "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm", "conv.in_proj": "shortconv.in_proj", "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate", "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down",
}  # fmt: skip
DECODERS = {"lfm2": Lfm2.load}
DIALECTS = (
    Dialect(
        architecture="lfm2", becomes="lfm2", text={"output_norm": "token_embd_norm"},
        found=lambda file: {"tokenizer.ggml.pre": "lfm2"},
    ),
)  # fmt: skip
RULES = (
    Rules(
        part="text",
        architecture="lfm2",
        classes=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
        types=("lfm2",),
        assumed={"conv_bias": False, "rope_parameters.partial_rotary_factor": 1.0},
        keys=(
            *KEYS,
            Key("{arch}.feed_forward_length", _inner),
            Key("{arch}.attention.head_count_kv",
                lambda s: [s.number("num_key_value_heads") if whole else 0 for whole in _types(s)], "ints"),
            Key("{arch}.attention.layer_norm_rms_epsilon", "norm_eps", "float", 1e-5),
            Key("{arch}.shortconv.l_cache", "conv_L_cache", "int", 3),
        ),
        tensors=(
            Tensor("embed_tokens.weight", "token_embd.weight"),
            Tensor("embedding_norm.weight", "token_embd_norm.weight"),
            Tensor("lm_head.weight", "output.weight"),
            Tensor("layers.{n}.conv.conv.weight", "blk.{n}.shortconv.conv.weight", flat, flat_shape, type="F32"),
            *(Tensor(f"layers.{{n}}.{theirs}", f"blk.{{n}}.{ours}") for theirs, ours in _LAYER.items()),
        ),
        defaults={
            "vocab_size": 65536, "max_position_embeddings": 128000, "hidden_size": 2560, "intermediate_size": 12288,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 1000000.0,
        },
    ),
)  # fmt: skip
