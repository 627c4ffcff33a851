"""The decoder with norms before and after each part ("sandwich"), some of whose layers see only a window.

Embeddings of ids are scaled by the square root of their width, and the FFN is gated by GELU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

import numpy as np

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.attention import Heads, SelfAttention
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.decoder import DecoderWeights, OverWeights
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import number, positive_float, positive_int
from opsin.nn.module import Module, at
from opsin.nn.parts import RmsNorm
from opsin.ops import Array

LEAST_CAP, LARGEST_CAP = 1e-3, 1e6  # of scores and logits; published ones are 30 and 50


class SandwichBlock(Module):
    attn_norm: RmsNorm
    attn: Annotated[SelfAttention, at("")]
    post_attention_norm: RmsNorm
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]
    post_ffw_norm: RmsNorm


class SandwichWeights(DecoderWeights):
    blk: list[SandwichBlock]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of layers: their KV group and their rope."""

    group: str
    window: int
    frequencies: Array
    rope_scale: float = 1.0


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer's keys and values lie: its kind, and its number in that kind's group."""

    kind: int
    number: int


@dataclass(frozen=True, eq=False)
class SandwichDecoder(OverWeights):
    """`cap` bounds logits, where it is above nothing (see `Ops.softcap`).

    `encodes`: it gives none, rows see what is ahead, too, and each layer writes its keys where the one before had its.
    """

    weights: SandwichWeights
    heads: Heads
    eps: float
    context: int
    kinds: tuple[Kind, ...]
    places: tuple[LayerPlace, ...]
    cap: float = 0.0
    axes: int = 1
    encodes: bool = False

    @classmethod
    def of(
        cls, file: File, prefix: str, weights: SandwichWeights, heads: Heads, *, whole: Kind, near: Kind,
        local: Sequence[bool], encodes: bool = False,
    ) -> Self:  # fmt: skip
        """Of weights that were checked. `local` says which layers are of the kind `near`; the others are `whole`."""
        for block in weights.blk:  # a cache is made for these heads before anything runs
            block.attn.check(heads)
        mixed = any(local) and not all(local)
        return cls(
            weights=weights,
            heads=heads,
            eps=positive_float(file, f"{prefix}.attention.layer_norm_rms_epsilon", 1e-6),
            context=positive_int(file, f"{prefix}.context_length"),
            kinds=(whole, near) if mixed else (replace(near if any(local) else whole, group="self"),),
            places=tuple(
                LayerPlace(int(mixed and is_near), list(local[:i]).count(is_near)) for i, is_near in enumerate(local)
            ),
            cap=cap_of(file, f"{prefix}.final_logit_softcapping"),
            encodes=encodes,
        )

    @property
    def vocabulary(self) -> int:
        return 0 if self.encodes else super().vocabulary

    @property
    def groups(self) -> dict[str, GroupShape]:
        counts = [sum(place.kind == i for place in self.places) for i in range(len(self.kinds))]
        return {
            kind.group: GroupShape(
                1 if self.encodes else count, self.heads.kv, self.heads.width, kind.window, bidirectional=self.encodes
            )
            for kind, count in zip(self.kinds, counts, strict=True)
        }

    def hidden(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = tap("embed", batch.overlay(self.width**0.5 * w.token_embd(batch.ids)))
        tables = [x.ops.rope_table(batch.positions, kind.frequencies, kind.rope_scale) for kind in self.kinds]
        for i, block in enumerate(w.blk):
            x = self._block(block, x, batch.in_layer(i, len(w.blk)), i, tables[self.places[i].kind])
        return tap("norm", w.output_norm(x, self.eps))

    def logits(self, x: Array) -> Array:
        logits = super().logits(x)
        return x.ops.softcap(logits, self.cap) if self.cap else logits

    def _block(self, block: SandwichBlock, x: Array, batch: Batch, layer: int, table: Array) -> Array:
        place, name = self.places[layer], f"blk.{layer}.attn"
        out = block.attn(
            block.attn_norm(x, self.eps), batch, group=self.kinds[place.kind].group,
            layer=0 if self.encodes else place.number,
            heads=self.heads, rope=table, pairing="halves", eps=self.eps, name=name,
        )  # fmt: skip
        x = batch.going_on(x) + block.post_attention_norm(out, self.eps)
        x = x + block.post_ffw_norm(block.ffn(block.ffn_norm(x, self.eps), "gelu"), self.eps)
        return batch.tap(f"blk.{layer}.out", x)


def local_layers(
    file: File, prefix: str, layers: int, *, period: int, window: int = 0, begins: bool = False
) -> list[bool]:
    """Which layers see only a window: by a list in the file, or all but the last of each period (`begins`: the first).

    `period` and `window` count where the file has none; without a window no layer is local.
    """
    if not file.get_int(f"{prefix}.attention.sliding_window", window):
        return [False] * layers
    key = f"{prefix}.attention.sliding_window_pattern"
    if isinstance(file.metadata.get(key), np.ndarray):
        listed: list[bool] = file.get_bools(key).tolist()
        if len(listed) != layers:
            raise ModelError(f"{key} has {len(listed)} values for {layers} layers")
        return listed
    period = file.get_int(key, period)
    if period < 0:
        raise ModelError(f"{key} is {period}", hint="the file is damaged; download it again")
    return [period == 0 or (i + (not begins)) % period != 0 for i in range(layers)]


def cap_of(file: File, key: str, default: float = 0.0) -> float:
    """What scores or logits never pass; 0 where they may have any size. Raises ModelError for no such number."""
    cap = number(file, key, default, least=0.0, most=LARGEST_CAP)
    if 0 < cap < LEAST_CAP:
        raise ModelError(f"{file.path}: {key} is {cap}", hint="the file is damaged; download it again")
    return cap
