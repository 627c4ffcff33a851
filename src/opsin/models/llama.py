"""Llama and its kin: RMS norm before, rotary positions of neighbouring pairs, grouped heads, SwiGLU.

GGUF: general.architecture = "llama". Oracle: transformers' LlamaForCausalLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, SelfAttention, heads_of
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, Linear, RmsNorm
from opsin.nn.rope import Rope, rope_of
from opsin.ops import Array


class Block(Module):
    attn_norm: RmsNorm
    attn: SelfAttention = at("")  # type: ignore[assignment]
    ffn_norm: RmsNorm
    ffn: GatedFfn = at("")  # type: ignore[assignment]


class Weights(Module):
    token_embd: Embedding
    blk: list[Block]
    output_norm: RmsNorm
    output: Linear | None


@dataclass(frozen=True, eq=False)
class Llama:
    weights: Weights
    heads: Heads
    rope: Rope
    eps: float
    context: int
    frequencies: Array

    @classmethod
    def load(cls, file: File, source: Reader) -> Llama:
        heads = heads_of(file, "llama")
        factors = source.values("rope_freqs.weight") if source.has("rope_freqs.weight") else None
        rope = rope_of(file, "llama", heads.width, factors)
        weights, layers = Weights.read(source), file.get_int("llama.block_count")
        if len(weights.blk) != layers:
            raise ModelError(f"{file.path} holds {len(weights.blk)} of its {layers} layers", hint="it is incomplete")
        rows = weights.token_embd.weight.shape[0]
        if weights.output is not None and weights.output.outputs != rows:
            raise ModelError(f"output.weight has {weights.output.outputs} rows, token_embd.weight {rows}")
        return cls(
            weights=weights,
            heads=heads,
            rope=rope,
            eps=positive_float(file, "llama.attention.layer_norm_rms_epsilon"),
            context=positive_int(file, "llama.context_length"),
            frequencies=source.ops.constant(rope.frequencies),
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {"self": GroupShape(len(self.weights.blk), self.heads.kv, self.heads.width)}

    @property
    def vocabulary(self) -> int:
        return self.weights.token_embd.weight.shape[0]

    def forward(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = tap("embed", w.token_embd(batch.ids))
        table = x.ops.rope_table(batch.positions, self.frequencies, self.rope.scale)
        for i, block in enumerate(w.blk):
            x = self._block(block, x, batch, i, table)
        x = tap("norm", w.output_norm(x.ops.take(x, batch.outputs), self.eps))
        return w.output(x) if w.output is not None else w.token_embd.logits(x)

    def _block(self, block: Block, x: Array, batch: Batch, layer: int, table: Array) -> Array:
        normed = block.attn_norm(x, self.eps)
        x = block.attn(
            normed, batch, layer=layer, heads=self.heads, rope=table, pairing="neighbours", eps=self.eps,
            name=f"blk.{layer}.attn", residual=x,
        )  # fmt: skip
        x = block.ffn(block.ffn_norm(x, self.eps), "silu", residual=x)
        return batch.tap(f"blk.{layer}.out", x)


DECODERS = {"llama": Llama}
