"""Self-attention and attention to a memory, over pages."""

from __future__ import annotations

from dataclasses import dataclass

from opsin.errors import ModelError
from opsin.nn.batch import Batch, Group
from opsin.nn.module import Module
from opsin.nn.parts import Linear, RmsNorm
from opsin.ops import Array, Pairing


@dataclass(frozen=True)
class Heads:
    """The shape of attention: query heads, KV heads, width of a head, and the scale of scores."""

    query: int
    kv: int
    width: int
    scale: float
    softcap: float = 0.0


class SelfAttention(Module):
    """Attention to the rows before; q, k and v apart or as one matrix, norms of q and k where the file has them."""

    attn_q: Linear | None
    attn_k: Linear | None
    attn_v: Linear | None
    attn_qkv: Linear | None
    attn_q_norm: RmsNorm | None
    attn_k_norm: RmsNorm | None
    attn_output: Linear

    def __call__(
        self, x: Array, batch: Batch, *, layer: int, heads: Heads, rope: Array | None, pairing: Pairing, eps: float,
        name: str, residual: Array | None = None,
    ) -> Array:  # fmt: skip
        """x [rows, width] -> the same shape, with `residual` added. `rope` is the table, None for no positions."""
        group = batch.groups["self"]
        q, k, v = self._project(x, heads)
        if self.attn_q_norm is not None:
            q = self.attn_q_norm(q, eps)
        if self.attn_k_norm is not None:
            k = self.attn_k_norm(k, eps)
        if rope is not None:
            q, k = x.ops.rope(q, rope, pairing), x.ops.rope(k, rope, pairing)
        assert group.slots is not None
        x.ops.store(group.pages, layer, k, v, group.slots)
        out = attend(q, batch, group, layer=layer, heads=heads, name=name)
        return batch.tap(f"{name}.sum", self.attn_output(out.reshape(heads.query * heads.width), residual))

    def _project(self, x: Array, heads: Heads) -> tuple[Array, Array, Array]:
        many, few = heads.query * heads.width, heads.kv * heads.width
        if self.attn_qkv is not None:
            whole = self.attn_qkv(x)
            parts = whole[:, :many], whole[:, many : many + few], whole[:, many + few : many + 2 * few]
        elif self.attn_q is not None and self.attn_k is not None and self.attn_v is not None:
            parts = self.attn_q(x), self.attn_k(x), self.attn_v(x)
        else:
            raise ModelError("a layer has neither attn_q, attn_k and attn_v nor attn_qkv")
        q, k, v = parts
        return q.reshape(heads.query, heads.width), k.reshape(heads.kv, heads.width), v.reshape(heads.kv, heads.width)


def attend(q: Array, batch: Batch, group: Group, *, layer: int, heads: Heads, name: str) -> Array:
    """`Ops.attend`, through the weights where a tap wants to see them."""
    ops, weights = q.ops, f"{name}.weights"
    if not batch.wants_weights(weights):
        return ops.attend(q, group.pages, layer, group.reads, scale=heads.scale, softcap=heads.softcap)
    seen = ops.attention_weights(q, group.pages, layer, group.reads, scale=heads.scale, softcap=heads.softcap)
    return ops.apply_weights(batch.tap(weights, seen), group.pages, layer, group.reads)
