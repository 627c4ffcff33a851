"""The decoder that most families share: a norm before each part, rotary positions, grouped heads, a gated FFN.

A family that differs in more than numbers writes its own around `DecoderWeights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, SelfAttention, heads_of
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.experts import ExpertFfn, routing_of
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, FfnNorm, Linear, RmsNorm
from opsin.nn.rope import Rope, Temperature, axis_of, rope_of, temperature_of
from opsin.ops import Array, Glu, Pairing
from opsin.ops.routes import Routing

Tables = tuple[Array, Array]  # of a rope, for queries and for keys


class DecoderWeights(Module):
    """What every decoder has around its blocks."""

    token_embd: Embedding
    output_norm: RmsNorm
    output: Linear | None

    @property
    def vocabulary(self) -> int:
        return self.token_embd.weight.shape[0]

    @property
    def width(self) -> int:
        return self.token_embd.weight.shape[1]

    def logits(self, x: Array) -> Array:
        """By the output matrix, or by the embeddings where the file ties them."""
        return self.output(x) if self.output is not None else self.token_embd.logits(x)

    def check(self, file: File, prefix: str, blocks: Sequence[Module]) -> None:
        """Raises ModelError where the file holds other sizes than it says."""
        layers = written_layers(file, prefix)
        if len(blocks) != layers:
            raise ModelError(f"{file.path} holds {len(blocks)} of its {layers} layers", hint="it is incomplete")
        if self.output is not None and self.output.outputs != self.vocabulary:
            raise ModelError(f"output.weight has {self.output.outputs} rows, token_embd.weight {self.vocabulary}")


def written_layers(file: File, prefix: str) -> int:
    """Layers of a file, but for the last ones where these guess further tokens (`{prefix}.nextn_predict_layers`)."""
    stored, key = positive_int(file, f"{prefix}.block_count"), f"{prefix}.nextn_predict_layers"
    guessing = file.get_int(key, 0)
    if not 0 <= guessing < stored:
        raise ModelError(f"{file.path}: {key} is {guessing}, of {stored} layers", hint="the file is damaged")
    return stored - guessing


class OverWeights:
    """What the weights alone say of a decoder; one that differs says so itself."""

    weights: DecoderWeights

    @property
    def states(self) -> Mapping[str, StateShape]:
        return {}

    @property
    def vocabulary(self) -> int:
        return self.weights.vocabulary

    @property
    def ids(self) -> int:
        return self.weights.vocabulary

    @property
    def width(self) -> int:
        return self.weights.width

    @property
    def media_width(self) -> int:
        return self.width

    @property
    def segments(self) -> int:
        return 0

    @property
    def guesses(self) -> bool:
        return False

    def hidden(self, batch: Batch) -> Array:
        raise NotImplementedError

    def logits(self, x: Array) -> Array:
        """Of states [rows, width] as `hidden` gives them."""
        return self.weights.logits(x)

    def forward(self, batch: Batch) -> Array:
        return self.logits(self.hidden(batch))


class PreNormBlock(Module):
    attn_norm: RmsNorm
    attn: Annotated[SelfAttention, at("")]
    ffn_norm: Annotated[FfnNorm, at("")]
    ffn: Annotated[ExpertFfn | GatedFfn, at("")]


class PreNormWeights(DecoderWeights):
    blk: list[PreNormBlock]


def check_experts(file: File, prefix: str, ffn: ExpertFfn | GatedFfn, routing: Routing | None, width: int) -> None:
    """Raises ModelError where a layer has experts of other sizes than the file says, or none are told of."""
    if isinstance(ffn, ExpertFfn):
        if routing is None:
            raise ModelError(f"{file.path} has {ffn.tensor('ffn_gate_inp.weight')} and says no {prefix}.expert_count")
        ffn.check(routing, width, file.get_int(f"{prefix}.expert_count"))


def feed_forward(ffn: ExpertFfn | GatedFfn, x: Array, kind: Glu, routing: Routing | None, residual: Array) -> Array:
    """x [rows, width] through a layer's FFN, or through its experts, chosen as `routing` says."""
    if isinstance(ffn, ExpertFfn):
        assert routing is not None, "checked when it was loaded"
        return ffn(x, kind, routing, residual)
    return ffn(x, kind, residual)


@dataclass(frozen=True, eq=False)
class PreNormDecoder(OverWeights):
    """`pairing` says which values of a head turn together.

    `axis` [pairs] says which of a row's positions turns which pair, where there are three (M-RoPE). `routing` is how
    layers of experts choose these.
    """

    WEIGHTS: ClassVar[type[PreNormWeights]] = PreNormWeights
    GLU: ClassVar[Glu] = "silu"

    weights: PreNormWeights
    heads: Heads
    rope: Rope
    eps: float
    context: int
    frequencies: Array
    pairing: Pairing
    axis: Array | None = None
    temperature: Temperature | None = None
    routing: Routing | None = None

    @classmethod
    def load(
        cls, file: File, source: Reader, prefix: str, *, pairing: Pairing, mrope: bool = False,
        rope: Rope | None = None, gating: int = 1,
    ) -> Self:  # fmt: skip
        """The decoder of a file whose keys begin with `prefix`; `mrope`: with the sections of M-RoPE.

        `rope`: another than the one that all families share. `gating`: that of experts, where the file does not say.
        """
        heads = heads_of(file, prefix)
        if rope is None:
            factors = source.values("rope_freqs.weight") if source.has("rope_freqs.weight") else None
            rope = rope_of(file, prefix, heads.width, factors)
        weights = cls.WEIGHTS.read(source)
        temperature = temperature_of(file, prefix, source.ops)
        if temperature is not None and (mrope or 2 * len(rope.frequencies) != heads.width):
            raise ModelError(f"{file.path}: {prefix}.attention.temperature_scale with a rope of parts of a head")
        weights.check(file, prefix, weights.blk)
        routing = routing_of(file, prefix, gating=gating)
        for block in weights.blk:  # a cache is made for these heads before anything runs
            block.attn.check(heads)
            check_experts(file, prefix, block.ffn, routing, weights.width)
        return cls(
            weights=weights,
            heads=heads,
            rope=rope,
            eps=positive_float(file, f"{prefix}.attention.layer_norm_rms_epsilon"),
            context=positive_int(file, f"{prefix}.context_length"),
            frequencies=source.ops.constant(rope.frequencies),
            pairing=pairing,
            axis=source.ops.constant(axis_of(file, prefix, len(rope.frequencies))) if mrope else None,
            temperature=temperature,
            routing=routing,
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {"self": GroupShape(len(self.weights.blk), self.heads.kv, self.heads.width)}

    @property
    def axes(self) -> int:
        return 1 if self.axis is None else 3

    def hidden(self, batch: Batch) -> Array:
        _, x, _ = self._through(batch, every=False)
        return batch.tap("norm", self.weights.output_norm(x, self.eps))

    def _through(self, batch: Batch, *, every: bool = True) -> tuple[Array, Array, Tables]:
        """Embeddings, what stands behind all layers [rows, width] (`every` row's, or outputs'), the rope's tables."""
        embedded = x = batch.tap("embed", batch.overlay(self.weights.token_embd(batch.ids)))
        tables = self._tables(batch)
        for i, block in enumerate(self.weights.blk):
            here = batch if every else batch.in_layer(i, len(self.weights.blk))
            x = self._block(block, x, here, i, tables)
        return embedded, x, tables

    def _place(self, layer: int) -> tuple[str, int]:
        """A layer's KV group, and its number among the layers of that."""
        return "self", layer

    def _tables(self, batch: Batch) -> Tables:
        ops, scale = batch.positions.ops, self.rope.scale
        if self.axis is not None and batch.axes is not None:
            table = ops.rope_table(batch.axes, self.frequencies, scale, self.axis)
            return table, table
        table = ops.rope_table(batch.positions, self.frequencies, scale)
        if self.temperature is None:
            return table, table
        growth, every = self.temperature.growth, self.temperature.every  # a query is turned and made longer at once
        return ops.rope_table(batch.positions, self.frequencies, scale, growth=growth, every=every), table

    def _block(self, block: PreNormBlock, x: Array, batch: Batch, layer: int, tables: Tables | None) -> Array:
        """Without `tables` the layer knows no positions."""
        x = self._attend(block, x, batch, layer, tables, residual=x)
        x = feed_forward(block.ffn, block.ffn_norm(x, self.eps), self.GLU, self.routing, residual=x)
        return batch.tap(f"blk.{layer}.out", x)

    def _attend(
        self, block: PreNormBlock, x: Array, batch: Batch, layer: int, tables: Tables | None, *,
        residual: Array | None = None,
    ) -> Array:  # fmt: skip
        queries, keys = tables or (None, None)
        group, number = self._place(layer)
        return block.attn(
            block.attn_norm(x, self.eps), batch, group=group, layer=number, heads=self.heads, rope=keys,
            queries=queries, pairing=self.pairing, eps=self.eps, name=f"blk.{layer}.attn", residual=residual,
        )  # fmt: skip
