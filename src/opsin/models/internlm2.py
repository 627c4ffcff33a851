"""InternLM 2 and 2.5: the common decoder, whose checkpoints hold queries, keys and values in one matrix.

Of each group of heads it has the queries, then the key and the value; GGUF holds them apart.

GGUF: general.architecture = "internlm2". Oracle: transformers' LlamaForCausalLM, which computes the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from opsin.arrays import Floats
from opsin.errors import FileError
from opsin.gguf.rules import Settings, Shape, Tensor, neighbours
from opsin.gguf.text_rules import HEADS, KV_HEADS, pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {"internlm2": partial(PreNormDecoder.load, prefix="internlm2", pairing="neighbours")}


def _in_groups(rows: int, settings: Settings) -> tuple[int, int]:
    """Groups of heads, and heads of each: its queries, a key and a value."""
    groups = settings.number(KV_HEADS)
    heads = settings.number(HEADS) // groups + 2
    if settings.number(HEADS) % groups or rows % (groups * heads):
        raise FileError(f"{settings.where}: {rows} rows are no {groups} groups of {heads}", hint="mend config.json")
    return groups, heads


def _part(name: str, first: int, last: int | None, heads: str | None) -> Tensor:
    """Some heads of each group. `heads`: the setting that says how many they are in all, where they turn."""

    def shape(given: Shape, settings: Settings) -> Shape:
        groups, count = _in_groups(given[0], settings)
        return given[0] // count * len(range(count)[first:last]), *given[1:]

    def change(values: Floats, settings: Settings) -> Floats:
        groups, count = _in_groups(len(values), settings)
        split = values.reshape(groups, count, -1, *values.shape[1:])
        taken = np.ascontiguousarray(split[:, first:last]).reshape(-1, *values.shape[1:])
        return neighbours(heads)(taken, settings) if heads else taken

    return Tensor("layers.{n}.attention.wqkv", f"blk.{{n}}.attn_{name}", change, shape)


RULES = (
    replace(
        pre_norm_rules("internlm2", ("InternLM2ForCausalLM",), ("internlm2",)),
        tensors=(
            Tensor("tok_embeddings.weight", "token_embd.weight"),
            Tensor("norm.weight", "output_norm.weight"),
            Tensor("output.weight", "output.weight"),
            _part("q", 0, -2, HEADS),
            _part("k", -2, -1, KV_HEADS),
            _part("v", -1, None, None),
            Tensor("layers.{n}.attention_norm", "blk.{n}.attn_norm"),
            Tensor("layers.{n}.attention.wo", "blk.{n}.attn_output"),
            Tensor("layers.{n}.ffn_norm", "blk.{n}.ffn_norm"),
            Tensor("layers.{n}.feed_forward.w1", "blk.{n}.ffn_gate"),
            Tensor("layers.{n}.feed_forward.w3", "blk.{n}.ffn_up"),
            Tensor("layers.{n}.feed_forward.w2", "blk.{n}.ffn_down"),
        ),
    ),
)
