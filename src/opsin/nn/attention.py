"""Self-attention and attention to a memory, over pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np

from opsin.arrays import Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.batch import Batch, Group, Memory
from opsin.nn.keys import number, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear, RmsNorm
from opsin.ops import Array, Pages, Pairing, most
from opsin.ops.alibi import Alibi

WIDEST = 1 << 14  # no head is nearly so wide; tables are made of that size before any tensor is looked at
LARGEST_SCALE = 1e4  # of scores; published ones are at most 1


@dataclass(frozen=True)
class Heads:
    """The shape of attention: query heads, KV heads, width of a head, and the scale of scores."""

    query: int
    kv: int
    width: int
    scale: float
    softcap: float = 0.0


def heads_of(file: File, prefix: str, *, kv: int | None = None) -> Heads:
    """The attention of a file: `{prefix}.attention.*`. Raises ModelError for numbers that do not go together.

    `kv`: KV heads, where the file does not say one number for all layers.
    """
    query = positive_int(file, f"{prefix}.attention.head_count")
    kv = positive_int(file, f"{prefix}.attention.head_count_kv", query) if kv is None else kv
    if query % kv:
        raise ModelError(f"{prefix}.attention.head_count_kv is {kv}, no part of {query} heads")
    share = positive_int(file, f"{prefix}.embedding_length") // query
    width = positive_int(file, f"{prefix}.attention.key_length", share)
    if width > WIDEST:
        raise ModelError(f"{prefix}.attention.key_length is {width}, more than {WIDEST}", hint="the file is damaged")
    scale = number(file, f"{prefix}.attention.scale", 0.0, least=0.0, most=LARGEST_SCALE)
    return Heads(query, kv, width, scale or width**-0.5)


class Projection(Module):
    """Queries, keys and values of rows, from matrices apart or from one."""

    attn_q: Linear | None
    attn_k: Linear | None
    attn_v: Linear | None
    attn_qkv: Linear | None

    def project(self, x: Array, heads: Heads) -> tuple[Array, Array, Array]:
        """x [rows, inputs] -> [rows, heads, width] of the three."""
        many, few = heads.query * heads.width, heads.kv * heads.width
        matrices = self.check(heads)
        if len(matrices) == 1:
            whole = matrices[0](x)
            parts = [whole[:, :many], whole[:, many : many + few], whole[:, many + few : many + 2 * few]]
        else:
            parts = [matrix(x) for matrix in matrices]
        q_rows, k_rows, v_rows = parts
        few_heads = heads.kv, heads.width
        return q_rows.reshape(heads.query, heads.width), k_rows.reshape(*few_heads), v_rows.reshape(*few_heads)

    def check(self, heads: Heads) -> tuple[Linear, ...]:
        """The matrices: one of all three, or three. Raises ModelError where one is missing or of another size."""
        many, few = heads.query * heads.width, heads.kv * heads.width
        if self.attn_qkv is not None:
            return (_sized(self.attn_qkv, many + 2 * few, heads),)
        if self.attn_q is not None and self.attn_k is not None and self.attn_v is not None:
            return _sized(self.attn_q, many, heads), _sized(self.attn_k, few, heads), _sized(self.attn_v, few, heads)
        known = {"attn_q": self.attn_q, "attn_k": self.attn_k, "attn_v": self.attn_v}
        missing = [self.tensor(name) for name, part in known.items() if part is None]
        other = f", nor {self.tensor('attn_qkv')}.weight" if len(missing) == len(known) else ""
        raise ModelError(f"there is no tensor {missing[0]}.weight{other}", hint="the file is incomplete")


class RowAttention(Projection):
    """Attention to the rows before, or to all of a text; sinks of scores where the file has them."""

    attn_output: Linear
    sinks: Annotated[Array | None, at("attn_sinks.weight")]

    def check(self, heads: Heads) -> tuple[Linear, ...]:
        if self.sinks is not None and self.sinks.shape != (heads.query,):
            raise ModelError(
                f"{self.tensor('attn_sinks.weight')} has {self.sinks.width} values for {heads.query} heads"
            )
        return super().check(heads)

    def __call__(
        self, x: Array, batch: Batch, *, layer: int, heads: Heads, rope: Array | None, pairing: Pairing, eps: float,
        name: str, residual: Array | None = None, group: str = "self", queries: Array | None = None,
        alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        """x [rows, width] -> the same of rows that go on, with `residual` added. `rope` is None for no positions.

        `layer` counts those of the KV group `group`, `queries` is their own table where it is not that of keys.
        """
        kept = batch.groups[group]
        q, k, v = self.project(x, heads)
        q, k = self.normed(q, k, eps)
        if rope is not None:
            q = x.ops.rope(q, rope if queries is None else queries, pairing)
            k = x.ops.rope(k, rope, pairing)
        assert kept.slots is not None
        x.ops.store(kept.pages, layer, k, v, kept.slots)
        kept, q = kept.of_rows(batch.outputs) if batch.last else kept, batch.going_on(q)
        out = attend(q, batch, kept, layer=layer, heads=heads, name=name, sinks=self.sinks, alibi=alibi)
        seen = self.gated(out.reshape(heads.query * heads.width), batch.going_on(x))
        return batch.tap(f"{name}.sum", self.attn_output(seen, None if residual is None else batch.going_on(residual)))

    def normed(self, q: Array, k: Array, eps: float) -> tuple[Array, Array]:
        """Queries and keys [rows, heads, width], before they turn."""
        return q, k

    def gated(self, seen: Array, x: Array) -> Array:
        """What rows of x saw [rows, heads * width], as it goes on."""
        return seen


class SelfAttention(RowAttention):
    """The same with norms of each head's q and k, where the file has them."""

    attn_q_norm: RmsNorm | None
    attn_k_norm: RmsNorm | None

    def normed(self, q: Array, k: Array, eps: float) -> tuple[Array, Array]:
        if self.attn_q_norm is not None:
            q = self.attn_q_norm(q, eps)
        return q, self._normed_keys(k, eps)

    def _normed_keys(self, k: Array, eps: float) -> Array:
        return k if self.attn_k_norm is None else self.attn_k_norm(k, eps)

    def write(
        self, x: Array, batch: Batch, *, layer: int, heads: Heads, rope: Array, pairing: Pairing, eps: float
    ) -> None:
        """The keys and values of x [rows, width] alone, of the KV group "self", for whoever looks back to them."""
        kept = batch.groups["self"]
        if self.attn_k is not None and self.attn_v is not None:
            k, v = (part(x).reshape(heads.kv, heads.width) for part in (self.attn_k, self.attn_v))
        else:
            _, k, v = self.project(x, heads)
        assert kept.slots is not None
        x.ops.store(kept.pages, layer, x.ops.rope(self._normed_keys(k, eps), rope, pairing), v, kept.slots)


class WideNormAttention(RowAttention):
    """The same with norms of all heads' q and k together, where the file has them."""

    attn_q_norm: LayerNorm | None
    attn_k_norm: LayerNorm | None

    def normed(self, q: Array, k: Array, eps: float) -> tuple[Array, Array]:
        return _wide(self.attn_q_norm, q, eps), _wide(self.attn_k_norm, k, eps)


def _wide(norm: LayerNorm | None, x: Array, eps: float) -> Array:
    heads, width = most(x.shape[1]), x.width
    return x if norm is None else norm(x.reshape(heads * width), eps).reshape(heads, width)


class _Half(Linear):
    """One of two parts of each head's rows in a matrix. A head is as wide as its norm, which stands beside it."""

    number: ClassVar[int]

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        width, name = source.values(f"{path}_norm.weight").size, f"{path}.weight"

        def rows(count: int) -> Ints:
            if not width or count % (2 * width):
                raise ModelError(f"{name} has {count} rows, which are no pairs of heads of {width}")
            return np.arange(count, dtype=np.int32).reshape(-1, 2, width)[:, cls.number].reshape(-1)

        part = cls.__new__(cls)
        part._path, part.weight, part.bias = path, source.weight(name, rows=rows), None
        return part


class _First(_Half):
    number = 0


class _Second(_Half):
    number = 1


class GatedAttention(SelfAttention):
    """The matrix of queries has a gate behind each head's queries: what a head sees is taken by its sigmoid."""

    attn_q: _First
    gate: Annotated[_Second, at("attn_q")]

    def check(self, heads: Heads) -> tuple[Linear, ...]:
        _sized(self.gate, heads.query * heads.width, heads)
        return super().check(heads)

    def gated(self, seen: Array, x: Array) -> Array:
        return x.ops.glu(self.gate(x), seen, "sigmoid")


class SharingAttention(Module):
    """Attention that writes and reads apart: some layers read what another has written, and have no keys.

    Values are normed without a weight (Gemma 4); where there is no matrix for them they are the keys, as these are
    before their norm.
    """

    attn_q: Linear
    attn_k: Linear | None
    attn_v: Linear | None
    attn_q_norm: RmsNorm
    attn_k_norm: RmsNorm | None
    attn_output: Linear

    def check(self, heads: Heads, width: int, *, shared: bool) -> None:
        """Raises ModelError, naming the tensor, where something is missing or of another size."""
        wide, few = heads.query * heads.width, heads.kv * heads.width
        self.attn_q.check(width, wide)
        self.attn_q_norm.check(heads.width)
        self.attn_output.check(wide, width)
        if shared:
            return
        for name, part in (("attn_k", self.attn_k), ("attn_k_norm", self.attn_k_norm)):
            if part is None:
                raise ModelError(f"there is no tensor {self.tensor(name)}.weight", hint="the file is incomplete")
        for matrix in (self.attn_k, self.attn_v):
            if matrix is not None:
                matrix.check(width, few)
        if self.attn_k_norm is not None:
            self.attn_k_norm.check(heads.width)

    def write(self, x: Array, kept: Group, layer: int, heads: Heads, table: Array, eps: float) -> None:
        """Keys and values of x [rows, width] into the pages of the rows."""
        assert self.attn_k is not None and self.attn_k_norm is not None and kept.slots is not None
        ops, raw = x.ops, self.attn_k(x)
        values = raw if self.attn_v is None else self.attn_v(x)
        k = self.attn_k_norm(raw.reshape(heads.kv, heads.width), eps)
        v = ops.rms_norm(values.reshape(heads.kv, heads.width), None, eps)
        ops.store(kept.pages, layer, ops.rope(k, table, "halves"), v, kept.slots)

    def look(
        self, x: Array, batch: Batch, kept: Group, *, layer: int, heads: Heads, table: Array, eps: float, name: str
    ) -> Array:
        """What x [rows, width] see of these pages: the same shape."""
        q = self.attn_q_norm(self.attn_q(x).reshape(heads.query, heads.width), eps)
        out = attend(x.ops.rope(q, table, "halves"), batch, kept, layer=layer, heads=heads, name=name)
        return batch.tap(f"{name}.sum", self.attn_output(out.reshape(heads.query * heads.width)))


class CrossAttention(Module):
    """Attention to what rows remember, whose keys and values are written once; norms of q and k."""

    q: Annotated[Linear, at("cross_attn_q_proj")]
    k: Annotated[Linear, at("cross_attn_k_proj")]
    v: Annotated[Linear, at("cross_attn_v_proj")]
    o: Annotated[Linear, at("cross_attn_o_proj")]
    q_norm: Annotated[RmsNorm, at("cross_attn_q_norm")]
    k_norm: Annotated[RmsNorm, at("cross_attn_k_norm")]

    def check(self, heads: Heads, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.q.check(width, heads.query * heads.width)
        self.k.check(width, heads.kv * heads.width)
        self.v.check(width, heads.kv * heads.width)
        self.o.check(heads.query * heads.width, width)
        self.q_norm.check(heads.width)
        self.k_norm.check(heads.width)

    def remember(self, memory: Array, pages: Pages, slots: Array, *, layer: int, heads: Heads, eps: float) -> None:
        """Keys and values of memory [rows, width] into slots [rows] of the pages."""
        k, v = (part(memory).reshape(heads.kv, heads.width) for part in (self.k, self.v))
        memory.ops.store(pages, layer, self.k_norm(k, eps), v, slots)

    def __call__(self, x: Array, kept: Memory, *, layer: int, heads: Heads, eps: float) -> Array:
        """x [remembering, width], the rows of `kept` -> what they see, in the same shape."""
        q = self.q_norm(self.q(x).reshape(heads.query, heads.width), eps)
        seen = x.ops.attend(q, kept.pages, layer, kept.reads, scale=heads.scale)
        return self.o(seen.reshape(heads.query * heads.width))


def _sized(part: Linear, outputs: int, heads: Heads) -> Linear:
    if part.outputs != outputs:
        raise ModelError(
            f"{part.tensor('weight')} has {part.outputs} outputs; {outputs} are needed for {heads.query} heads and "
            f"{heads.kv} KV heads of {heads.width}"
        )
    return part


def attend(
    q: Array, batch: Batch, group: Group, *, layer: int, heads: Heads, name: str, sinks: Array | None = None,
    alibi: Alibi | None = None,
) -> Array:  # fmt: skip
    """`Ops.attend`, through the weights where a tap wants to see them."""
    ops, weights, scale, cap = q.ops, f"{name}.weights", heads.scale, heads.softcap
    if not batch.wants_weights(weights):
        return ops.attend(q, group.pages, layer, group.reads, scale=scale, softcap=cap, sinks=sinks, alibi=alibi)
    seen = ops.attention_weights(q, group.pages, layer, group.reads, scale=scale, softcap=cap, sinks=sinks, alibi=alibi)
    return ops.apply_weights(batch.tap(weights, seen), group.pages, layer, group.reads)
