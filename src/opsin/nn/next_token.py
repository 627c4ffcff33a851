"""A layer behind a decoder's own that guesses the token after the next (multi-token prediction).

From the state h behind a token and the token that was drawn from it (DeepSeek-AI 2024, arXiv 2412.19437, section 2.2):
h' = norm(layer(eh_proj [enorm(the drawn token's embedding), hnorm(h)])). Both h and h' stand after the last norm, as in
llama.cpp and vLLM. Logits are the output matrix of h'; with h' in the place of h it guesses on.

A row of it stands where its token stands, so that its keys and values are one more layer of the decoder's cache: a step
writes them beside those of its own layers, from the states of the rows before, and the layer itself runs for guesses
alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, SelfAttention
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.decoder import DecoderWeights, PreNormBlock, PreNormDecoder, check_experts, feed_forward
from opsin.nn.experts import ExpertFfn
from opsin.nn.ffn import GatedFfn
from opsin.nn.module import Module, Reader, Rereader
from opsin.nn.parts import Embedding, Linear, RmsNorm
from opsin.ops import Array, Glu, Pairing, Weight
from opsin.ops.routes import Routing


class TwoInputs(Module):
    """A layer of two arrays side by side, each with its half of the matrix's columns."""

    first: Weight
    second: Weight

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = cls.__new__(cls)
        part._path, (part.first, part.second) = path, source.halves(f"{path}.weight")
        return part

    def check(self, width: int) -> None:
        """Raises ModelError unless two arrays of this width become one."""
        for half in (self.first, self.second):
            if half.shape != (width, width):
                raise ModelError(f"{self.tensor('weight')} is no {width} x {2 * width}", hint="the file is damaged")

    def __call__(self, x: Array, y: Array) -> Array:
        return x.ops.linear(y, self.second, residual=x.ops.linear(x, self.first))


class Parts(Module):
    """What a layer that guesses has beside an ordinary one's: `blk.N.nextn`. What is missing is the decoder's own."""

    eh_proj: TwoInputs
    enorm: RmsNorm
    hnorm: RmsNorm
    embed_tokens: Embedding | None
    shared_head_norm: RmsNorm | None
    shared_head_head: Linear | None

    def check(self, weights: DecoderWeights) -> None:
        """Raises ModelError, naming the tensor, where something is of another size than the decoder's."""
        width, ids = weights.width, weights.vocabulary
        self.eh_proj.check(width)
        for norm in (self.enorm, self.hnorm, self.shared_head_norm):
            if norm is not None:
                norm.check(width)
        if self.embed_tokens is not None and self.embed_tokens.weight.shape != (ids, width):
            raise ModelError(f"{self.embed_tokens.tensor('weight')} is no {ids} x {width}")
        if self.shared_head_head is not None:
            self.shared_head_head.check(width, ids)


class Layer(Protocol):
    """An ordinary layer that attends."""

    @property
    def attn_norm(self) -> RmsNorm: ...

    @property
    def attn(self) -> SelfAttention: ...

    @property
    def ffn_norm(self) -> RmsNorm: ...

    @property
    def ffn(self) -> ExpertFfn | GatedFfn: ...


@dataclass(frozen=True, eq=False)
class NextToken:
    """The layer with what it has beside, and what a decoder's layers share. `number`: in the KV group "self"."""

    parts: Parts
    layer: Layer
    number: int
    heads: Heads
    eps: float
    routing: Routing | None = None
    pairing: Pairing = "halves"
    kind: Glu = "silu"

    @classmethod
    def of(
        cls, source: Reader, weights: DecoderWeights, layer: Layer, stored: int, number: int, *, heads: Heads,
        eps: float, routing: Routing | None = None,
    ) -> NextToken:  # fmt: skip
        """`layer` is the file's number `stored`, and `number` in the KV group. Raises ModelError as `Parts.check`."""
        parts = Parts.read(source, f"blk.{stored}.nextn")
        parts.check(weights)
        layer.attn.check(heads)
        return cls(parts, layer, number, heads, eps, routing=routing)

    def write(self, batch: Batch, embedded: Array, states: Array, table: Array) -> None:
        """Keys and values of a step's rows. `embedded` are those of the decoder, `states` its own [rows, width]."""
        assert batch.shift is not None
        x = self._enter(batch, embedded, batch.shift(states))
        self.layer.attn.write(
            self.layer.attn_norm(x, self.eps), batch, layer=self.number, heads=self.heads, rope=table,
            pairing=self.pairing, eps=self.eps,
        )  # fmt: skip

    def guess(self, weights: DecoderWeights, batch: Batch, states: Array, table: Array) -> tuple[Array, Array]:
        """As `models.Guesses.guess`."""
        layer, eps = self.layer, self.eps
        x = self._enter(batch, weights.token_embd(batch.ids), states)
        x = layer.attn(
            layer.attn_norm(x, eps), batch, layer=self.number, heads=self.heads, rope=table, pairing=self.pairing,
            eps=eps, name="next.attn", residual=x,
        )  # fmt: skip
        x = feed_forward(layer.ffn, layer.ffn_norm(x, eps), self.kind, self.routing, residual=x)
        after = (self.parts.shared_head_norm or weights.output_norm)(x, eps)
        own = self.parts.shared_head_head
        return after, weights.logits(after) if own is None else own(after)

    def _enter(self, batch: Batch, embedded: Array, states: Array) -> Array:
        own = self.parts.embed_tokens
        embedded = embedded if own is None else batch.overlay(own(batch.ids))
        return self.parts.eh_proj(self.parts.enorm(embedded, self.eps), self.parts.hnorm(states, self.eps))


@dataclass(frozen=True, eq=False)
class GuessingDecoder(PreNormDecoder):
    """The decoder that most families share, with a layer behind its own that guesses."""

    next_token: NextToken | None = None

    @classmethod
    def around(cls, decoder: PreNormDecoder, file: File, source: Reader, prefix: str) -> PreNormDecoder:
        """A decoder with that layer, where its file has one. Raises ModelError for one that does not fit."""
        stored = len(decoder.weights.blk)
        if not has_next_token(source, stored):
            return decoder
        layer, heads = PreNormBlock.read(source, f"blk.{stored}"), decoder.heads
        check_experts(file, prefix, layer.ffn, decoder.routing, decoder.width)
        found = NextToken.of(
            source, decoder.weights, layer, stored, stored, heads=heads, eps=decoder.eps, routing=decoder.routing
        )
        shared = {field.name: getattr(decoder, field.name) for field in fields(decoder)}
        return cls(**shared, next_token=replace(found, pairing=decoder.pairing, kind=decoder.GLU))

    @property
    def guesses(self) -> bool:
        return True

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {"self": GroupShape(len(self.weights.blk) + 1, self.heads.kv, self.heads.width)}

    def every(self, batch: Batch) -> Array:
        """As `models.Guesses`."""
        assert self.next_token is not None
        embedded, x, (_, table) = self._through(batch)
        states = self.weights.output_norm(x, self.eps)
        self.next_token.write(batch, embedded, states, table)
        return states

    def guess(self, batch: Batch, states: Array) -> tuple[Array, Array]:
        """As `models.Guesses`."""
        assert self.next_token is not None
        return self.next_token.guess(self.weights, batch, states, self._tables(batch)[1])


def has_next_token(source: Reader, layer: int) -> bool:
    """Whether a file has a layer that guesses behind so many of its own."""
    return source.has(f"blk.{layer}.nextn.eh_proj.weight")


class WithoutNextToken(Rereader):
    """What a reader has, but for layers that guess."""

    def has(self, name: str) -> bool:
        return ".nextn." not in name and super().has(name)
