"""Llama 3.2 Vision's text: pictures stand beside it, and some layers look at them (cross-attention).

A row of text sees the pictures that stand last before it. One before any picture passes the layers that look at
pictures as if they were not there: Meta's rule, of which transformers keeps only a half.

GGUF: general.architecture = "mllama". Oracle: transformers' MllamaForConditionalGeneration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Tensor, neighbours
from opsin.gguf.text_rules import HEADS, KV_HEADS, PRE_NORM, ROPE_FACTORS, head_width, pre_norm_rules, tensors
from opsin.nn.attention import CrossAttention, Heads, heads_of
from opsin.nn.batch import MEMORY, Batch, GroupShape
from opsin.nn.decoder import DecoderWeights, OverWeights, PreNormBlock, check_experts, feed_forward
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Gate, RmsNorm
from opsin.nn.rope import rope_of
from opsin.ops import Array, Pages


class CrossBlock(Module):
    """A layer that looks at pictures. Its gates are raw in files."""

    attn_norm: RmsNorm
    attn: Annotated[CrossAttention, at("")]
    attn_gate: Annotated[Gate, at("cross_attn_attn_gate")]
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]
    ffn_gate: Annotated[Gate, at("cross_attn_mlp_gate")]


@dataclass(frozen=True, eq=False)
class MllamaDecoder(OverWeights):
    weights: DecoderWeights
    blocks: tuple[PreNormBlock | CrossBlock, ...]
    heads: Heads
    scale: float  # of the rope
    eps: float
    context: int
    frequencies: Array
    axes: ClassVar[int] = 1

    @classmethod
    def load(cls, file: File, source: Reader) -> MllamaDecoder:
        heads, weights = heads_of(file, "mllama"), DecoderWeights.read(source)
        layers, crossing = _layers(file)
        blocks = tuple((CrossBlock if i in crossing else PreNormBlock).read(source, f"blk.{i}") for i in range(layers))
        if source.below(f"blk.{layers}"):
            raise ModelError(f"{file.path} holds more than its {layers} layers", hint="the file is damaged")
        if weights.output is not None and weights.output.outputs > weights.vocabulary:
            raise ModelError(f"output.weight has {weights.output.outputs} rows, token_embd.weight {weights.vocabulary}")
        for block in blocks:
            if isinstance(block, CrossBlock):
                block.attn.check(heads, weights.width)
            else:
                block.attn.check(heads)
                check_experts(file, "mllama", block.ffn, None, weights.width)
        factors = source.values("rope_freqs.weight") if source.has("rope_freqs.weight") else None
        rope = rope_of(file, "mllama", heads.width, factors)
        return cls(
            weights=weights,
            blocks=blocks,
            heads=heads,
            scale=rope.scale,
            eps=positive_float(file, "mllama.attention.layer_norm_rms_epsilon"),
            context=positive_int(file, "mllama.context_length"),
            frequencies=source.ops.constant(rope.frequencies),
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        crossing = len(self._crossing)
        shape = GroupShape(len(self.blocks) - crossing, self.heads.kv, self.heads.width)
        return {"self": shape, MEMORY: replace(shape, layers=crossing)}

    @property
    def _crossing(self) -> list[CrossBlock]:
        return [block for block in self.blocks if isinstance(block, CrossBlock)]

    @property
    def vocabulary(self) -> int:
        """Less than `ids` by those that stand for pictures."""
        return self.ids if self.weights.output is None else self.weights.output.outputs

    def remember(self, memory: Array, pages: Pages, slots: Array) -> None:
        for layer, block in enumerate(self._crossing):
            block.attn.remember(memory, pages, slots, layer=layer, heads=self.heads, eps=self.eps)

    def hidden(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = tap("embed", batch.overlay(w.token_embd(batch.ids)))
        table = x.ops.rope_table(batch.positions, self.frequencies, self.scale)
        own = crossing = 0
        for i, block in enumerate(self.blocks):
            batch = batch.in_layer(i, len(self.blocks))
            if isinstance(block, CrossBlock):
                x = batch.going_on(self._look(block, x, batch, crossing))
                crossing += 1
            else:
                x = block.attn(
                    block.attn_norm(x, self.eps), batch, layer=own, heads=self.heads, rope=table, pairing="neighbours",
                    eps=self.eps, name=f"blk.{i}.attn", residual=x,
                )  # fmt: skip
                x = feed_forward(block.ffn, block.ffn_norm(x, self.eps), "silu", None, residual=x)
                own += 1
            x = tap(f"blk.{i}.out", x)
        return tap("norm", w.output_norm(x, self.eps))

    def _look(self, block: CrossBlock, x: Array, batch: Batch, layer: int) -> Array:
        """Rows that remember a picture look at it; the others stay as they are."""
        kept, eps = batch.memory, self.eps
        if kept is None:
            return x
        rows = x.ops.take(x, kept.rows)
        seen = block.attn(block.attn_norm(rows, eps), kept, layer=layer, heads=self.heads, eps=eps)
        rows = rows + seen * math.tanh(block.attn_gate.value)
        rows = rows + block.ffn(block.ffn_norm(rows, eps), "silu") * math.tanh(block.ffn_gate.value)
        return x.ops.put(x, rows, kept.places)


def _layers(file: File) -> tuple[int, set[int]]:
    """How many there are, and which of them look at pictures."""
    key, layers = "mllama.attention.cross_attention_layers", positive_int(file, "mllama.block_count")
    crossing = file.get_ints(key).tolist()
    are_some = 0 < len(set(crossing)) == len(crossing) < layers
    if not (are_some and min(crossing) >= 0 and max(crossing) < layers):
        raise ModelError(f"{file.path}: {key} is {crossing[:8]}, of {layers} layers", hint="the file is damaged")
    return layers, set(crossing)


DECODERS = {"mllama": MllamaDecoder.load}
_CROSS = (
    *(f"cross_attn.{name}_proj" for name in "qkvo"),
    "cross_attn.q_norm",
    "cross_attn.k_norm",
    "cross_attn_attn_gate",
    "cross_attn_mlp_gate",
)
RULES = (
    replace(
        pre_norm_rules(
            "mllama", ("MllamaForConditionalGeneration",), (),
            Key("mllama.attention.cross_attention_layers", "cross_attention_layers", "ints", [*range(3, 40, 5)]),
            Key("mllama.rope.dimension_count", head_width),
        ),
        tensors=(
            *tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)),
            *PRE_NORM,
            *(Tensor(f"layers.{{n}}.{name}", f"blk.{{n}}.{name.replace('.', '_')}") for name in _CROSS),
        ),
        made=(ROPE_FACTORS,),
        defaults={
            "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 40,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5, "rope_theta": 5e5,
        },
    ),
)  # fmt: skip
