"""The operations in torch, float32, thin: the same networks over it prove that `nn` asks for nothing that a GPU lacks.

Counts are not known here: every size is a number. Values are torch tensors, weights dense.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from opsin.ops import PAGE, Activation, Array, Glu, Pages, PageType, Pairing, Raw, Reads, Rows, Size, Weight, most
from opsin.ops.alibi import Alibi
from opsin.ops.recurrence import Runs, States
from opsin.ops.routes import Routes, Routing, Stack
from opsin.quants import by_id

_ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_erf": functional.gelu,
    "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, eq=False)
class TorchWeight:
    values: Tensor  # [outputs, inputs]

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    @property
    def bytes(self) -> int:
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class TorchStack:
    values: Tensor  # [experts, outputs, inputs]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.values.shape[0], self.values.shape[1], self.values.shape[2]

    @property
    def bytes(self) -> int:
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class TorchPages:
    k: Tensor  # [layers, pages * PAGE, heads, width]
    v: Tensor

    @property
    def layers(self) -> int:
        return self.k.shape[0]

    @property
    def count(self) -> int:
        return self.k.shape[1] // PAGE

    @property
    def bytes(self) -> int:
        return self.k.nbytes + self.v.nbytes


@dataclass(frozen=True, eq=False)
class TorchStates:
    values: Tensor  # [layers, slots, *shape]

    @property
    def layers(self) -> int:
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[2:])

    @property
    def count(self) -> int:
        return self.values.shape[1]

    @property
    def bytes(self) -> int:
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class TorchRows:
    count: int
    values: dict[int, Tensor]

    def set(self, place: int, embeddings: Array, row: int, rows: int = 1) -> None:
        for i in range(rows):
            self.values[place + i] = embeddings.data[row + i]

    def clear(self, place: int = 0, rows: int | None = None) -> None:
        for i in range(place, self.count if rows is None else place + rows):
            self.values.pop(i, None)


class TorchOps:
    """`opsin.ops.Ops`."""

    def wrap(self, values: Tensor) -> Array:
        return Array(self, values, tuple(values.shape), "f32" if values.dtype == torch.float32 else "i32")

    def constant(self, values: np.ndarray) -> Array:
        kind = np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32
        return self.wrap(torch.from_numpy(values.astype(kind)))

    def pack(self, raw: Raw, *, rounded: bool = False) -> Weight:
        kind, (outputs, inputs) = by_id(raw.type), raw.shape
        stored = np.empty(outputs * kind.row_bytes(inputs), np.uint8)
        raw.read(0, outputs, stored)
        return TorchWeight(torch.from_numpy(kind.decode(stored.reshape(-1, kind.bytes)).reshape(outputs, inputs)))

    def stored(self, raw: Raw) -> Weight:
        return self.pack(raw)

    def linear(
        self, x: Array, w: Weight, bias: Array | None = None, residual: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:  # fmt: skip
        y = functional.linear(x.data, w.values, None if bias is None else bias.data)
        if activation is not None:
            y = _ACTIVATIONS[activation](y)
        return self.wrap(y if residual is None else y + residual.data)

    def embed(self, ids: Array, w: Weight) -> Array:
        return self.wrap(functional.embedding(ids.data, w.values))

    def take(self, x: Array, rows: Array) -> Array:
        return self.wrap(x.data[rows.data])

    def put(self, x: Array, y: Array, places: Array) -> Array:
        there = torch.nonzero(places.data >= 0)[:, 0]
        return self.wrap(x.data.index_copy(0, there, y.data[places.data[there]]))

    def rows(self, count: int) -> TorchRows:
        return TorchRows(count, {})

    def overlay(self, x: Array, rows: Rows) -> Array:
        assert isinstance(rows, TorchRows)
        y = x.data.clone()
        for place, row in rows.values.items():
            if place < len(y):
                y[place] = row[: x.width]
        return self.wrap(y)

    def add_rows(self, x: Array, rows: Rows, first: int) -> Array:
        assert isinstance(rows, TorchRows)
        y = x.data.clone()
        for place, row in rows.values.items():
            if place < len(y):
                y[place] += row[first : first + x.width]
        return self.wrap(y)

    def fold(self, x: Array, k: int) -> Array:
        return self.wrap(x.data.reshape(x.shape[0] // k, -1))

    def mean_rows(self, x: Array, k: int) -> Array:
        return self.wrap(x.data.unflatten(0, (-1, k)).mean(1))

    def rms_norm(self, x: Array, w: Array | None, eps: float) -> Array:
        return self.wrap(functional.rms_norm(x.data, (x.width,), None if w is None else w.data, eps))

    def layer_norm(self, x: Array, w: Array, b: Array | None, eps: float) -> Array:
        return self.wrap(functional.layer_norm(x.data, (x.width,), w.data, None if b is None else b.data, eps))

    def rope_table(
        self, positions: Array, frequencies: Array, scale: float = 1.0, axis: Array | None = None, *,
        growth: Array | None = None, every: int = 1,
    ) -> Array:  # fmt: skip
        places = positions.data.double()
        places = places[:, None] if axis is None else places[:, axis.data.long()]
        angles = places * frequencies.data.double()[None]
        table = torch.stack([angles.cos(), angles.sin()], 1) * scale
        if growth is not None:
            steps = (positions.data.reshape(len(places), -1)[:, 0] // every).clamp(0, growth.width - 1)
            table = table * growth.data.double()[steps.long()][:, None, None]
        return self.wrap(table.float())

    def rope(self, x: Array, table: Array, pairing: Pairing) -> Array:
        cos, sin = table.data[:, None, 0], table.data[:, None, 1]
        pairs = cos.shape[-1]
        turned, rest = x.data[..., : 2 * pairs], x.data[..., 2 * pairs :]
        if pairing == "halves":
            a, b = turned.chunk(2, -1)
            return self.wrap(torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1))
        if pairing == "quarters":
            a, b, c, d = turned.chunk(4, -1)
            first, second = torch.cat([a, c], -1), torch.cat([b, d], -1)
            a, c = (first * cos - second * sin).chunk(2, -1)
            b, d = (first * sin + second * cos).chunk(2, -1)
            return self.wrap(torch.cat([a, b, c, d, rest], -1))
        a, b = turned.unflatten(-1, (pairs, 2)).unbind(-1)
        return self.wrap(torch.cat([torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2), rest], -1))

    def glu(self, gate: Array, up: Array, kind: Glu) -> Array:
        if kind == "swiglu_oai":
            low = gate.data.clamp(max=7)
            return self.wrap(low * (1.702 * low).sigmoid() * (up.data.clamp(-7, 7) + 1))
        return self.wrap(_ACTIVATIONS[kind](gate.data) * up.data)

    def activate(self, x: Array, kind: Activation) -> Array:
        return self.wrap(_ACTIVATIONS[kind](x.data))

    def add(self, x: Array, y: Array) -> Array:
        return self.wrap(x.data + y.data)

    def multiply(self, x: Array, y: Array) -> Array:
        return self.wrap(x.data * y.data)

    def scale(self, x: Array, factor: float) -> Array:
        return self.wrap(x.data * factor)

    def clamp(self, x: Array, least: float, most: float) -> Array:
        return self.wrap(x.data.clamp(least, most))

    def softcap(self, x: Array, cap: float) -> Array:
        return self.wrap(cap * torch.tanh(x.data / cap))

    def pages(self, *, layers: int, heads: int, width: int, count: int, kind: PageType) -> Pages:
        assert kind == "f32"
        return TorchPages(*torch.zeros(2, layers, count * PAGE, heads, width))

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        kept = slots.data >= 0
        pages.k[layer, slots.data[kept]] = k.data[kept]
        pages.v[layer, slots.data[kept]] = v.data[kept]

    def attend(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        weights = self.attention_weights(q, pages, layer, reads, scale=scale, softcap=softcap, sinks=sinks, alibi=alibi)
        return self.apply_weights(weights, pages, layer, reads)

    def attend_dense(
        self, q: Array, k: Array, v: Array, first: Array, last: Array, *, scale: float, parts: int = 1,
        bias: Array | None = None, softcap: float = 0.0, like: Weight | None = None,
    ) -> Array:  # fmt: skip
        assert not softcap, "no tower of these tests has it"
        place = torch.arange(k.shape[0])
        start = (torch.arange(parts) * (k.shape[0] // parts)).repeat_interleave(q.shape[0] // parts)
        seen = (place >= (start + first.data)[:, None]) & (place < (start + last.data)[:, None])
        heads = (x.data.transpose(0, 1)[None] for x in (q, k, v))
        if bias is not None:
            rows = torch.arange(q.shape[0]) % bias.shape[0]
            added = bias.data[rows].repeat(1, 1, parts).transpose(0, 1)  # [heads or 1, rows, keys]
            seen = added.masked_fill(~seen, -torch.inf)[None]
        out = functional.scaled_dot_product_attention(*heads, attn_mask=seen, scale=scale, enable_gqa=True)
        return self.wrap(out[0].transpose(0, 1).nan_to_num(0.0))  # rows that see nothing

    def attention_weights(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        keys = self._keys(pages.k[layer], reads, q.shape[1])  # [rows, keys, heads, width]
        scores = torch.einsum("nhd,nkhd->nhk", q.data, keys) * scale
        if softcap:
            scores = softcap * (scores / softcap).tanh()
        place = torch.arange(keys.shape[1])
        if alibi is not None:
            scores -= alibi.slopes.data[:, None] * (alibi.places.data[:, None] - place).abs()[:, None]
        seen = (place >= reads.first.data[:, None]) & (place < reads.last.data[:, None])
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        if sinks is not None:
            scores = torch.cat([scores, sinks.data[:, None].expand(*scores.shape[:2], 1)], -1)
        weights = scores.softmax(-1)[..., : len(place)]
        return self.wrap(weights.nan_to_num(0.0))  # rows that see nothing

    def apply_weights(self, weights: Array, pages: Pages, layer: int, reads: Reads) -> Array:
        values = self._keys(pages.v[layer], reads, weights.shape[1])
        return self.wrap(torch.einsum("nhk,nkhd->nhd", weights.data, values))

    def _keys(self, pool: Tensor, reads: Reads, heads: int) -> Tensor:
        longest = int(reads.last.data.max())
        place = torch.arange(longest)
        slots = reads.tables.data[:, place // PAGE].long() * PAGE + place % PAGE  # [sequences, keys]
        return pool[slots[reads.sequence.data]].repeat_interleave(heads // pool.shape[1], 2)

    def states(self, *, layers: int, shape: tuple[int, ...], count: int) -> States:
        return TorchStates(torch.zeros(layers, count, *shape))

    def conv_state(
        self, x: Array, w: Array, states: States, layer: int, runs: Runs, kind: Activation | None = None
    ) -> Array:
        taps, results = w.data.T[:, None], []
        for i, (start, end, before) in self._runs(states, layer, runs):
            known = torch.cat([before, x.data[start:end]])
            results.append(functional.conv1d(known.T, taps, groups=x.width).T)
            states.values[layer, runs.writes.data[i]] = known[end - start :]
        y = torch.cat(results)
        return self.wrap(y if kind is None else _ACTIVATIONS[kind](y))

    def delta(
        self, q: Array, k: Array, v: Array, decay: Array, beta: Array, states: States, layer: int, runs: Runs, *,
        scale: float, eps: float, grouped: bool = False,
    ) -> Array:  # fmt: skip
        heads, keys, values = states.shape
        repeats = heads * keys // q.width
        queries, known = (self._unit(x.data.unflatten(1, (-1, keys)), eps) for x in (q, k))
        spread = (lambda x: x.repeat_interleave(repeats, 1)) if grouped else (lambda x: x.repeat(1, repeats, 1))
        queries, known, out = spread(queries), spread(known), torch.zeros(v.shape[0], heads, values)
        for i, (start, end, state) in self._runs(states, layer, runs):
            for row in range(start, end):
                state = state * decay.data[row][:, None, None]
                error = v.data[row].unflatten(0, (heads, values)) - (known[row][:, None] @ state)[:, 0]
                state = state + known[row][:, :, None] * (beta.data[row][:, None] * error)[:, None]
                out[row] = (queries[row][:, None] @ state)[:, 0] * scale
            states.values[layer, runs.writes.data[i]] = state
        return self.wrap(out.flatten(1))

    def decay(self, x: Array, rate: Array) -> Array:
        return self.wrap((rate.data * functional.softplus(x.data)).exp())

    def _unit(self, x: Tensor, eps: float) -> Tensor:
        return x * (x.square().sum(-1, keepdim=True) + eps).rsqrt()

    def _runs(self, states: States, layer: int, runs: Runs):
        assert isinstance(states, TorchStates)
        starts, reads = runs.starts.data.tolist(), runs.reads.data.tolist()
        for i, read in enumerate(reads):
            if starts[i] < starts[i + 1]:
                before = states.values[layer, read] if read >= 0 else torch.zeros(states.shape)
                yield i, (starts[i], starts[i + 1], before)

    def candidates(self, x: Array, k: Size) -> tuple[Array, Array, Array]:
        values, places = x.data.sort(dim=-1, descending=True, stable=True)
        sums = (x.data - values[:, :1]).exp().sum(-1)
        return self.wrap(places[:, : most(k)].int()), self.wrap(values[:, : most(k)]), self.wrap(sums)

    def pack_experts(self, raw: Raw, experts: int) -> Stack:
        whole = self.pack(raw)
        assert isinstance(whole, TorchWeight)
        return TorchStack(whole.values.unflatten(0, (experts, -1)))

    def route(self, logits: Array, how: Routing, bias: Array | None = None, gains: Array | None = None) -> Routes:
        x = logits.data
        scores = x.softmax(-1) if how.gating == "softmax" else x.sigmoid()
        merits = scores if bias is None else scores + bias.data
        if how.groups > 1:
            groups = merits.unflatten(-1, (how.groups, -1))
            worth = groups.topk(min(2, groups.shape[-1]), -1).values.sum(-1)
            kept = torch.zeros_like(worth).scatter(-1, worth.topk(how.used_groups, -1).indices, 1.0)
            merits = groups.masked_fill(kept[..., None] == 0, -torch.inf).flatten(-2)
        chosen = merits.topk(how.used, -1).indices
        shares = scores.gather(-1, chosen)
        if how.normalised:
            shares = shares / shares.sum(-1, keepdim=True)
        shares = shares * how.scale * (1.0 if gains is None else gains.data[chosen])
        pairs = chosen.flatten().argsort(stable=True)
        places = pairs.argsort()
        shape = chosen.shape
        parts = (chosen.int(), shares, pairs.int().reshape(shape), places.int().reshape(shape))
        return Routes(*(self.wrap(part) for part in parts))

    def spread(self, x: Array, routes: Routes, *, weighed: bool = False) -> Array:
        pairs = routes.pairs.data.long()
        y = x.data[pairs // pairs.shape[1]]
        return self.wrap(y * routes.shares.data.flatten()[pairs][..., None] if weighed else y)

    def experts(self, x: Array, w: Stack, routes: Routes, bias: Array | None = None) -> Array:
        assert isinstance(w, TorchStack)
        own = routes.experts.data.flatten()[routes.pairs.data.long()].long()
        y = torch.einsum("nkoi,nki->nko", w.values[own], x.data)
        return self.wrap(y if bias is None else y + bias.data[own])

    def join(self, x: Array, routes: Routes, residual: Array | None = None, *, weighed: bool = True) -> Array:
        values = x.data.flatten(0, 1)[routes.places.data.long()]
        y = (values * routes.shares.data[..., None] if weighed else values).sum(1)
        return self.wrap(y if residual is None else y + residual.data)

    def gated(self, x: Array, by: Array, w: Array, residual: Array | None = None) -> Array:
        y = x.data * (by.data @ w.data).sigmoid()[:, None]
        return self.wrap(y if residual is None else y + residual.data)

    def recorded(self, key: Hashable, build: Callable[..., Array], *inputs: np.ndarray) -> Array:
        return build(self, *(self.constant(values) for values in inputs))

    def reshape(self, x: Array, shape: tuple[Size, ...]) -> Array:
        return self.wrap(x.data.reshape(shape))

    def cut(self, x: Array, start: int, stop: int) -> Array:
        return self.wrap(x.data[..., start:stop])

    def numpy(self, x: Array) -> np.ndarray:
        return x.data.numpy().copy()
