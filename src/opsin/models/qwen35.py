"""Qwen 3.5, 3.6 and 3.8: of four layers three are gated delta networks, whose state does not grow with the text.

The fourth attends, to the heads' queries a gate is added, and a part of each head turns, by three axes that take turns.
The tower is Qwen3-VL's, without DeepStack. A layer behind the others may guess the token after the next.

With experts, each row passes through a few and one that all share, by a gate.

GGUF: general.architecture = "qwen35" or "qwen35moe". Oracles: transformers' Qwen3_5ForConditionalGeneration and
Qwen3_5MoeForConditionalGeneration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Self

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Change, Key, Rules, Settings, Shape, Tensor, plus_one
from opsin.gguf.text_rules import (
    EXPERT_KEYS,
    KEYS,
    NEXT_TOKEN_KEYS,
    expert_tensors,
    fused_expert_tensors,
    tensors,
    turned,
)  # fmt: skip
from opsin.models.qwen2vl import sections
from opsin.models.qwen3vl import dialect, tower_found, tower_rules
from opsin.nn.attention import GatedAttention, Heads, heads_of
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.decoder import DecoderWeights, OverWeights, check_experts, feed_forward, written_layers
from opsin.nn.delta import DeltaHeads, DeltaLayer, delta_heads_of
from opsin.nn.experts import ExpertFfn, routing_of
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.next_token import NextToken, has_next_token
from opsin.nn.parts import RmsNorm
from opsin.nn.rope import Rope, interleaved_axis_of, rope_of
from opsin.ops import Array
from opsin.ops.routes import Routing


class FullBlock(Module):
    attn_norm: RmsNorm
    attn: Annotated[GatedAttention, at("")]
    ffn_norm: Annotated[RmsNorm, at("post_attention_norm")]
    ffn: Annotated[ExpertFfn | GatedFfn, at("")]


class DeltaBlock(Module):
    attn_norm: RmsNorm
    delta: Annotated[DeltaLayer, at("")]
    ffn_norm: Annotated[RmsNorm, at("post_attention_norm")]
    ffn: Annotated[ExpertFfn | GatedFfn, at("")]


@dataclass(frozen=True, eq=False)
class Qwen35Decoder(OverWeights):
    """`axis` [pairs] says which of a row's positions turns which pair; None where there is one for all."""

    weights: DecoderWeights
    blocks: tuple[FullBlock | DeltaBlock, ...]
    heads: Heads
    delta: DeltaHeads
    rope: Rope
    eps: float
    context: int
    frequencies: Array
    axis: Array | None
    routing: Routing | None  # how layers of experts choose these
    next_token: NextToken | None = None

    @classmethod
    def load(
        cls, file: File, source: Reader, prefix: str, *, delta: DeltaHeads | None = None, mrope: bool = True
    ) -> Self:
        """`delta`: heads of the recurrent layers, where they are not told as ever.

        Raises ModelError, naming key or tensor, for parts that do not go together.
        """
        delta = delta or delta_heads_of(file, prefix)
        heads, weights = _heads(file, prefix), DecoderWeights.read(source)
        blocks = tuple(
            (DeltaBlock if recurrent else FullBlock).read(source, f"blk.{i}")
            for i, recurrent in enumerate(recurrent_layers(file, prefix))
        )
        routing = routing_of(file, prefix)
        for block in blocks:
            check_experts(file, prefix, block.ffn, routing, weights.width)
            if isinstance(block, DeltaBlock):
                block.delta.check(weights.width, delta)
            else:
                block.attn.check(heads)
        rope, constant = rope_of(file, prefix, heads.width), source.ops.constant
        eps = positive_float(file, f"{prefix}.attention.layer_norm_rms_epsilon")
        full, next_token = sum(isinstance(block, FullBlock) for block in blocks), None
        if has_next_token(source, len(blocks)):
            layer = FullBlock.read(source, f"blk.{len(blocks)}")
            next_token = NextToken.of(source, weights, layer, len(blocks), full, heads=heads, eps=eps, routing=routing)
            check_experts(file, prefix, layer.ffn, routing, weights.width)
        return cls(
            weights=weights,
            blocks=blocks,
            heads=heads,
            delta=delta,
            rope=rope,
            eps=eps,
            context=positive_int(file, f"{prefix}.context_length"),
            frequencies=constant(rope.frequencies),
            axis=constant(interleaved_axis_of(file, prefix, len(rope.frequencies))) if mrope else None,
            routing=routing,
            next_token=next_token,
        )

    @property
    def axes(self) -> int:
        return 1 if self.axis is None else 3

    @property
    def groups(self) -> dict[str, GroupShape]:
        full = len(self.blocks) - self._recurrent + self.guesses
        return {"self": GroupShape(full, self.heads.kv, self.heads.width)}

    @property
    def guesses(self) -> bool:
        return self.next_token is not None

    @property
    def states(self) -> dict[str, StateShape]:
        return self.delta.states(self._recurrent)

    @property
    def _recurrent(self) -> int:
        return sum(isinstance(block, DeltaBlock) for block in self.blocks)

    def hidden(self, batch: Batch) -> Array:
        _, x, _ = self._through(batch, every=False)
        return batch.tap("norm", self.weights.output_norm(x, self.eps))

    def every(self, batch: Batch) -> Array:
        """As `models.Guesses`."""
        assert self.next_token is not None
        embedded, x, table = self._through(batch)
        states = self.weights.output_norm(x, self.eps)
        self.next_token.write(batch, embedded, states, table)
        return states

    def guess(self, batch: Batch, states: Array) -> tuple[Array, Array]:
        """As `models.Guesses`."""
        assert self.next_token is not None
        return self.next_token.guess(self.weights, batch, states, self._table(batch))

    def _table(self, batch: Batch) -> Array:
        places, axis = (batch.positions, None) if batch.axes is None else (batch.axes, self.axis)
        return places.ops.rope_table(places, self.frequencies, self.rope.scale, axis)

    def _through(self, batch: Batch, *, every: bool = True) -> tuple[Array, Array, Array]:
        """Embeddings, what stands behind all layers [rows, width] (`every` row's, or outputs'), the rope's table."""
        w, tap = self.weights, batch.tap
        embedded = x = tap("embed", batch.overlay(w.token_embd(batch.ids)))
        table, full, recurrent = self._table(batch), 0, 0
        for i, block in enumerate(self.blocks):
            normed = block.attn_norm(x, self.eps)
            batch = batch if every else batch.in_layer(i, len(self.blocks))
            if isinstance(block, DeltaBlock):
                x = block.delta(
                    normed, batch, layer=recurrent, heads=self.delta, eps=self.eps, name=f"blk.{i}.attn", residual=x
                )
                x = batch.going_on(x)
                recurrent += 1
            else:
                x = block.attn(
                    normed, batch, layer=full, heads=self.heads, rope=table, pairing="halves", eps=self.eps,
                    name=f"blk.{i}.attn", residual=x,
                )  # fmt: skip
                full += 1
            x = feed_forward(block.ffn, block.ffn_norm(x, self.eps), "silu", self.routing, residual=x)
            x = tap(f"blk.{i}.out", x)
        return embedded, x, table


def _heads(file: File, prefix: str) -> Heads:
    """Of the layers that attend; a file may tell of each layer apart, and of none in the others."""
    key = f"{prefix}.attention.head_count_kv"
    told = file.metadata.get(key)
    if isinstance(told, np.ndarray) and told.dtype.kind in "iu" and told.size:
        file = file.with_keys({key: int(told.max())})
    return heads_of(file, prefix)


def recurrent_layers(file: File, prefix: str) -> Sequence[bool]:
    """Which layers are recurrent, without those behind them that guess further tokens."""
    layers, stored = written_layers(file, prefix), file.get_int(f"{prefix}.block_count")
    if f"blk.{layers - 1}.attn_norm.weight" not in file.tensors:
        raise ModelError(f"{file.path} holds less than its {layers} layers", hint="it is incomplete")
    key = f"{prefix}.attention.recurrent_layers"
    if key not in file.metadata:
        every = positive_int(file, f"{prefix}.full_attention_interval", 4)
        return [(layer + 1) % every != 0 for layer in range(layers)]
    told = file.get_bools(key)
    if len(told) not in (layers, stored):
        raise ModelError(f"{file.path}: {key} tells of {len(told)} layers, of {stored}", hint="the file is damaged")
    return [bool(value) for value in told[:layers]]


DECODERS = {
    "qwen35": partial(Qwen35Decoder.load, prefix="qwen35"),
    "qwen35moe": partial(Qwen35Decoder.load, prefix="qwen35moe"),
}


def _order(settings: Settings, width: int) -> Ints:
    """Rows of value heads that stand grouped by their key head, as they stand tiled: by their number in a group."""
    keys, values = settings.number(_KEY_HEADS, 16), settings.number(_VALUE_HEADS, 32)
    if values % keys:
        raise ModelError(f"{settings.where}: {values} heads of values for {keys} of keys", hint="mend config.json")
    rows = np.arange(values * width, dtype=np.int32)
    return rows.reshape(keys, values // keys, width).swapaxes(0, 1).reshape(-1)


def _tiled(path: str | None = None, *, behind_keys: bool = False, axis: int = 0) -> Change:
    """Value heads in the order of files. `path`: their width, else 1; `behind_keys`: queries and keys stand first."""

    def change(values: Floats, settings: Settings) -> Floats:
        order = _order(settings, settings.number(path, 128) if path else 1)
        first = 2 * settings.number(_KEY_HEADS, 16) * settings.number(_KEY_WIDTH, 128) if behind_keys else 0
        if values.shape[axis] != first + len(order):
            raise ModelError(f"{settings.where}: {values.shape} is no {first + len(order)}", hint="mend config.json")
        return values.take(np.concatenate([np.arange(first), first + order]), axis)

    return change


def _taps(values: Floats, settings: Settings) -> Floats:
    return _tiled(_VALUE_WIDTH, behind_keys=True)(values.reshape(len(values), -1), settings)


def _rate(values: Floats, settings: Settings) -> Floats:
    return _tiled()(-np.exp(values), settings)


def _taps_shape(shape: Shape, settings: Settings) -> Shape:
    return shape[0], shape[-1]


def _recurrent(settings: Settings) -> list[bool]:
    layers, every = settings.number("num_hidden_layers"), settings.number("full_attention_interval", 4)
    told = settings.find("layer_types")
    known = ("linear_attention", "full_attention")
    if told is None:
        told = [known[not (layer + 1) % every] for layer in range(layers)]
    if not isinstance(told, list) or len(told) != layers or not set(told) <= set(known):
        raise ModelError(f"{settings.where}: layer_types is {told!r:.60}, of {layers} layers", hint="mend config.json")
    return [kind == known[0] for kind in told] + [False] * (settings.find("next_token_layers") is not None)


def _inner(settings: Settings) -> int:
    return settings.number(_VALUE_HEADS, 32) * settings.number(_VALUE_WIDTH, 128)


_KEY_HEADS, _VALUE_HEADS = "linear_num_key_heads", "linear_num_value_heads"
_KEY_WIDTH, _VALUE_WIDTH = "linear_key_head_dim", "linear_value_head_dim"
RECURRENT_KEYS = (
    Key("{arch}.ssm.conv_kernel", "linear_conv_kernel_dim", "int", 4),
    Key("{arch}.ssm.state_size", _KEY_WIDTH, "int", 128),
    Key("{arch}.ssm.group_count", _KEY_HEADS, "int", 16),
    Key("{arch}.ssm.time_step_rank", _VALUE_HEADS, "int", 32),
    Key("{arch}.ssm.inner_size", _inner),
    Key("{arch}.full_attention_interval", "full_attention_interval", "int", 4),
    Key("{arch}.attention.recurrent_layers", _recurrent, "bools"),
    Key("{arch}.rope.dimension_count", partial(turned, share=0.25)),
)
_LINEAR, _BLOCK = "layers.{n}.linear_attn", "blk.{n}"
TENSORS = (
    *tensors(norm=plus_one),
    Tensor("layers.{n}.post_attention_layernorm", f"{_BLOCK}.post_attention_norm", plus_one),
    Tensor(f"{_LINEAR}.in_proj_qkv", f"{_BLOCK}.attn_qkv", _tiled(_VALUE_WIDTH, behind_keys=True)),
    Tensor(f"{_LINEAR}.in_proj_z", f"{_BLOCK}.attn_gate", _tiled(_VALUE_WIDTH)),
    Tensor(f"{_LINEAR}.in_proj_a", f"{_BLOCK}.ssm_alpha", _tiled()),
    Tensor(f"{_LINEAR}.in_proj_b", f"{_BLOCK}.ssm_beta", _tiled()),
    Tensor(f"{_LINEAR}.conv1d.weight", f"{_BLOCK}.ssm_conv1d.weight", _taps, _taps_shape, type="F32"),
    Tensor(f"{_LINEAR}.A_log", f"{_BLOCK}.ssm_a", _rate, type="F32"),
    Tensor(f"{_LINEAR}.dt_bias", f"{_BLOCK}.ssm_dt.bias", _tiled(), type="F32"),
    Tensor(f"{_LINEAR}.norm", f"{_BLOCK}.ssm_norm"),
    Tensor(f"{_LINEAR}.out_proj", f"{_BLOCK}.ssm_out", _tiled(_VALUE_WIDTH, axis=1)),
)


def _last(settings: Settings, number: int) -> int:
    """The layer that guesses stands behind all others."""
    return settings.number("num_hidden_layers")


def _next_token_tensors(layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors of a checkpoint's first layer that guesses, an ordinary one that attends, and of what it has beside."""
    start, names = "layers.{n}.", {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm"}
    ordinary = (rule for rule in layers if rule.source.startswith(start) and not rule.source.startswith(_LINEAR))
    return (
        *(replace(rule, source="mtp.layers.0." + rule.source[len(start) :], number=_last) for rule in ordinary),
        *(
            Tensor(f"mtp.{theirs}", f"{_BLOCK}.nextn.{ours}", plus_one if "norm" in ours else None, number=_last)
            for theirs, ours in {**names, "norm": "shared_head_norm"}.items()
        ),
    )


_TEXT = Rules(
    part="text",
    architecture="qwen35",
    classes=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
    types=("qwen3_5_text",),
    keys=(*KEYS, *NEXT_TOKEN_KEYS, *RECURRENT_KEYS, sections(11, 11, 10)),
    tensors=(*TENSORS, *_next_token_tensors(TENSORS)),
    defaults={
        "vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "head_dim": 256,
    },
    dropped=("mtp.*",),
    next_token="mtp.fc",
    assumed={"hidden_act": "silu", "attn_output_gate": True, "rope_parameters.mrope_interleaved": True},
)  # fmt: skip


_SHARED = "layers.{n}.mlp.shared_expert"
SHARED_EXPERT = (
    *(Tensor(f"{_SHARED}.{part}_proj", f"{_BLOCK}.ffn_{part}_shexp") for part in ("gate", "up", "down")),
    Tensor(f"{_SHARED}_gate.weight", f"{_BLOCK}.ffn_gate_inp_shexp.weight", type="F32"),
)
_EXPERT_TENSORS = (*TENSORS, *expert_tensors(), *fused_expert_tensors(), *SHARED_EXPERT)
_MIXTURE = replace(
    _TEXT,
    architecture="qwen35moe",
    classes=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    types=("qwen3_5_moe_text",),
    keys=(
        *(key for key in _TEXT.keys if key.name != "{arch}.feed_forward_length"), *EXPERT_KEYS,
        Key("{arch}.expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ),
    tensors=(*_EXPERT_TENSORS, *_next_token_tensors(_EXPERT_TENSORS)),
    defaults={
        **_TEXT.defaults, "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "num_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
    },
)  # fmt: skip
DIALECTS = tuple(dialect(name, tower_found, {"ssm_dt": "ssm_dt.bias"}) for name in ("qwen35", "qwen35moe"))
RULES = (
    _TEXT,
    _MIXTURE,
    tower_rules("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration", deep=False),
)
