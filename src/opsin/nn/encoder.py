"""Encoders of text: every row sees all rows of its text, a norm after each part, no logits.

A text is computed in one step, and each layer writes its keys and values where the one before had its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, WideNormAttention, heads_of
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, LayerNorm, Linear
from opsin.nn.rope import Rope, rope_of
from opsin.ops import Activation, Array
from opsin.ops.alibi import Alibi, alibi_slopes

Places = Literal["table", "rope", "alibi"]


class EncoderFfn(Module):
    """down(activation(up x)), or with a gate down(activation(gate x) * up x).

    `ffn_up` may hold both, the gate first.
    """

    ffn_gate: Linear | None
    ffn_up: Linear
    ffn_down: Linear

    def __call__(self, x: Array, kind: Activation, residual: Array) -> Array:
        middle = self.ffn_down.weight.shape[1]
        if self.ffn_gate is not None:
            return self.ffn_down(x.ops.glu(self.ffn_gate(x), self.ffn_up(x), kind), residual)
        if self.ffn_up.outputs == 2 * middle:
            both = self.ffn_up(x)
            return self.ffn_down(x.ops.glu(both[:, :middle], both[:, middle:], kind), residual)
        return self.ffn_down(self.ffn_up(x, activation=kind), residual)


class EncoderBlock(Module):
    attn: Annotated[WideNormAttention, at("")]
    attn_output_norm: LayerNorm
    attn_norm_2: LayerNorm | None
    ffn: Annotated[EncoderFfn, at("")]
    layer_output_norm: LayerNorm


class EncoderWeights(Module):
    token_embd: Embedding
    token_types: Embedding | None
    position_embd: Embedding | None
    token_embd_norm: LayerNorm
    blk: list[EncoderBlock]


class EmbeddedWeights(Protocol):
    """What every encoder of text has before its blocks."""

    @property
    def token_embd(self) -> Embedding: ...


class OverEmbeddings:
    """What the weights alone say of an encoder of text."""

    weights: EmbeddedWeights

    @property
    def states(self) -> Mapping[str, StateShape]:
        return {}

    @property
    def ids(self) -> int:
        return self.weights.token_embd.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weights.token_embd.weight.shape[1]

    @property
    def media_width(self) -> int:
        return self.width

    @property
    def guesses(self) -> bool:
        return False

    def forward(self, batch: Batch) -> Array:
        raise ModelError("this model makes embeddings, and writes nothing")


@dataclass(frozen=True, eq=False)
class TextEncoder(OverEmbeddings):
    """It gives no ids: its vocabulary is none.

    Rows are placed by one of three: a table of positions, a rope (`frequencies`), or scores that fall with the distance
    (`slopes`).
    """

    weights: EncoderWeights
    heads: Heads
    eps: float
    context: int
    activation: Activation
    rope: Rope | None
    frequencies: Array | None
    slopes: Array | None = None
    axes: int = 1
    vocabulary: int = 0

    @classmethod
    def load(cls, file: File, source: Reader, prefix: str, *, activation: Activation, places: Places) -> Self:
        """The encoder of a file whose keys begin with `prefix`."""
        heads, weights = heads_of(file, prefix), EncoderWeights.read(source)
        context, layers = positive_int(file, f"{prefix}.context_length"), positive_int(file, f"{prefix}.block_count")
        if len(weights.blk) != layers:
            raise ModelError(f"{file.path} holds {len(weights.blk)} of its {layers} layers", hint="it is incomplete")
        for block in weights.blk:  # a cache is made for these heads before anything runs
            block.attn.check(heads)
        table = weights.position_embd
        if table is None and places == "table":
            raise ModelError("there is no tensor position_embd.weight", hint="the file is incomplete")
        if table is not None and table.weight.shape[0] < context:
            raise ModelError(f"{file.path}: {prefix}.context_length is {context}, of {table.weight.shape[0]} positions")
        rope = rope_of(file, prefix, heads.width) if places == "rope" else None
        return cls(
            weights=weights,
            heads=heads,
            eps=positive_float(file, f"{prefix}.attention.layer_norm_epsilon"),
            context=context,
            activation=activation,
            rope=rope,
            frequencies=source.ops.constant(rope.frequencies) if rope is not None else None,
            slopes=source.ops.constant(alibi_slopes(heads.query)) if places == "alibi" else None,
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {"self": GroupShape(1, self.heads.kv, self.heads.width, bidirectional=True)}

    @property
    def segments(self) -> int:
        return 0 if self.weights.token_types is None else self.weights.token_types.weight.shape[0]

    def hidden(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = w.token_embd(batch.ids)
        if w.token_types is not None and batch.segments is not None:
            x = x + w.token_types(batch.segments)
        if w.position_embd is not None:
            x = x + w.position_embd(batch.positions)
        x = tap("embed", w.token_embd_norm(x, self.eps))
        table = None
        if self.frequencies is not None and self.rope is not None:
            table = x.ops.rope_table(batch.positions, self.frequencies, self.rope.scale)
        alibi = None if self.slopes is None else Alibi(self.slopes, batch.positions)
        for i, block in enumerate(w.blk):
            seen = block.attn(
                x, batch, layer=0, heads=self.heads, rope=table, pairing="halves", eps=self.eps, name=f"blk.{i}.attn",
                residual=x, alibi=alibi,
            )  # fmt: skip
            seen = block.attn_output_norm(seen, self.eps)
            x = seen if block.attn_norm_2 is None else block.attn_norm_2(seen + x, self.eps)
            x = tap(f"blk.{i}.out", block.layer_output_norm(block.ffn(x, self.activation, residual=x), self.eps))
        return tap("norm", x.ops.take(x, batch.outputs))
