"""Qwen 3 Next: layers of Qwen 3.5 with experts, whose heads stand otherwise, and positions of one axis.

Value heads that share a key head stand together, as do the rates of decay and the shares of writing of such a group in
one matrix. Old files hold queries, keys, values and gates of a group together as well, in one matrix `ssm_in`.

GGUF: general.architecture = "qwen3next". Oracle: transformers' Qwen3NextForCausalLM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Change, Key, Rules, Settings, Shape, Tensor, flat, flat_shape, plus_one
from opsin.gguf.text_rules import EXPERT_KEYS, KEYS, expert_tensors, fused_expert_tensors, tensors
from opsin.models.qwen35 import RECURRENT_KEYS, SHARED_EXPERT
from opsin.models.qwen35 import Qwen35Decoder as DeltaDecoder
from opsin.nn.delta import DeltaHeads, delta_heads_of
from opsin.nn.module import Change as RowChange
from opsin.nn.module import Choice, Reader, Rereader
from opsin.ops import Weight

NAME = "qwen3next"
# Parts of a matrix whose rows stand by groups: queries, keys, values and gates; and how much is written, and kept.
MIXED, RATES = "ssm_in", "ssm_ba"
PARTS = {"attn_qkv": (MIXED, (0, 1, 2)), "attn_gate": (MIXED, (3,)), "ssm_beta": (RATES, (0,)),
         "ssm_alpha": (RATES, (1,))}  # fmt: skip


def group_widths(heads: DeltaHeads, name: str) -> tuple[int, ...]:
    """Rows that each part of a group has in a matrix of this name."""
    group = heads.values // heads.keys
    values = group * heads.value_width
    return (heads.key_width, heads.key_width, values, values) if name == MIXED else (group, group)


def rows_of(widths: Sequence[int], groups: int, parts: Sequence[int]) -> Ints:
    """Rows of some parts of all groups, one part behind the other, where groups stand one behind the other."""
    whole, starts = np.arange(groups, dtype=np.int32)[:, None] * sum(widths), np.cumsum([0, *widths])
    return np.concatenate([(whole + np.arange(starts[p], starts[p + 1], dtype=np.int32)).reshape(-1) for p in parts])


class Unmixed(Rereader):
    """A file whose matrices of several parts are read as one for each part."""

    def __init__(self, source: Reader, heads: DeltaHeads) -> None:
        super().__init__(source)
        self.heads = heads

    def weight(self, name: str, *, change: RowChange | None = None, rows: Choice | None = None) -> Weight:
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        if part not in PARTS or self.has(name):
            return super().weight(name, change=change, rows=rows)
        mixed, parts = PARTS[part]
        whole, widths = f"{layer}.{mixed}.weight", group_widths(self.heads, mixed)

        def chosen(count: int) -> Ints:
            if count != self.heads.keys * sum(widths):
                raise ModelError(f"{whole} makes {count} values, where {self.heads.keys * sum(widths)} are needed")
            return rows_of(widths, self.heads.keys, parts)

        return super().weight(whole, rows=chosen)


def load(file: File, source: Reader) -> DeltaDecoder:
    """Raises ModelError, naming key or tensor, for parts that do not go together."""
    heads = delta_heads_of(file, NAME, grouped=True)
    return DeltaDecoder.load(file, Unmixed(source, heads), NAME, delta=heads, mrope=False)


def _heads(settings: Settings) -> DeltaHeads:
    keys, values = settings.number("linear_num_key_heads", 16), settings.number("linear_num_value_heads", 32)
    if values % keys:
        raise ModelError(f"{settings.where}: {values} heads of values for {keys} of keys", hint="mend config.json")
    key, value = (settings.number(f"linear_{part}_head_dim", 128) for part in ("key", "value"))
    return DeltaHeads(keys, values, key, value, settings.number("linear_conv_kernel_dim", 4), grouped=True)


def _part(name: str) -> Change:
    """Of the matrix of a layer's queries, keys, values and gates."""

    def change(values: Floats, settings: Settings) -> Floats:
        heads = _heads(settings)
        widths = group_widths(heads, MIXED)
        if len(values) != heads.keys * sum(widths):
            raise ModelError(f"{settings.where}: {values.shape} is no {heads.keys} x {widths}", hint="mend config.json")
        return values[rows_of(widths, heads.keys, PARTS[name][1])]

    return change


def _qkv_shape(shape: Shape, settings: Settings) -> Shape:
    return _heads(settings).channels, shape[1]


def _gate_shape(shape: Shape, settings: Settings) -> Shape:
    return _heads(settings).all_values, shape[1]


def _rate(values: Floats, settings: Settings) -> Floats:
    return -np.exp(values)


_LINEAR, _BLOCK = "layers.{n}.linear_attn", "blk.{n}"
DECODERS = {"qwen3next": load}
RULES = (
    Rules(
        part="text",
        architecture=NAME,
        classes=("Qwen3NextForCausalLM",),
        types=("qwen3_next",),
        keys=(
            *KEYS, *RECURRENT_KEYS, *EXPERT_KEYS,
            Key("{arch}.expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        ),
        tensors=(
            *tensors(norm=plus_one), *expert_tensors(), *fused_expert_tensors(), *SHARED_EXPERT,
            Tensor("layers.{n}.post_attention_layernorm", f"{_BLOCK}.post_attention_norm", plus_one),
            Tensor(f"{_LINEAR}.in_proj_qkvz.weight", f"{_BLOCK}.attn_qkv.weight", _part("attn_qkv"), _qkv_shape),
            Tensor(f"{_LINEAR}.in_proj_qkvz.weight", f"{_BLOCK}.attn_gate.weight", _part("attn_gate"), _gate_shape),
            Tensor(f"{_LINEAR}.in_proj_ba", f"{_BLOCK}.ssm_ba"),
            Tensor(f"{_LINEAR}.conv1d.weight", f"{_BLOCK}.ssm_conv1d.weight", flat, flat_shape, type="F32"),
            Tensor(f"{_LINEAR}.A_log", f"{_BLOCK}.ssm_a", _rate, type="F32"),
            Tensor(f"{_LINEAR}.dt_bias", f"{_BLOCK}.ssm_dt.bias", type="F32"),
            Tensor(f"{_LINEAR}.norm", f"{_BLOCK}.ssm_norm"),
            Tensor(f"{_LINEAR}.out_proj", f"{_BLOCK}.ssm_out"),
        ),
        defaults={
            "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
            "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "head_dim": 256,
            "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
        },
        dropped=("mtp.*",),
        assumed={"hidden_act": "silu", "attention_bias": False},
    ),
)  # fmt: skip
