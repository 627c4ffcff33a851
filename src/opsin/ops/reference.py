"""Every operation in plain NumPy: the definition that devices are tested against. Slow and clear.

`data` of an Array is an ndarray here, computed in float64 where `wide` asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opsin.arrays import Bytes
from opsin.ops import PAGE, Activation, Array, Glu, Pages, PageType, Pairing, Raw, Reads, Rows, Size, Weight, most
from opsin.ops.alibi import Alibi
from opsin.ops.reference_states import RecurrentReference
from opsin.ops.reference_values import Values, activated, data
from opsin.ops.routes import Routes, Routing, Stack
from opsin.quants import by_id

_KINDS = {"f32": np.float32, "i32": np.int32}


@dataclass(frozen=True, eq=False)
class DenseWeight:
    values: npt.NDArray[np.float32]  # [outputs, inputs]

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.values.shape[0]), int(self.values.shape[1])

    @property
    def bytes(self) -> int:
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class DenseStack:
    values: npt.NDArray[np.float32]  # [experts, outputs, inputs]

    @property
    def shape(self) -> tuple[int, int, int]:
        experts, outputs, inputs = self.values.shape
        return int(experts), int(outputs), int(inputs)

    @property
    def bytes(self) -> int:
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class DensePages:
    k: npt.NDArray[np.floating]  # [layers, pages, PAGE, heads, width]
    v: npt.NDArray[np.floating]

    @property
    def layers(self) -> int:
        return int(self.k.shape[0])

    @property
    def count(self) -> int:
        return int(self.k.shape[1])

    @property
    def bytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def read(self, pages: Sequence[int]) -> Bytes:
        both = np.stack((self.k[:, list(pages)], self.v[:, list(pages)]))  # [2, layers, pages, PAGE, heads, width]
        values = both.size // max(1, len(pages))
        return np.ascontiguousarray(np.moveaxis(both, 2, 0)).reshape(len(pages), values).view(np.uint8)

    def write(self, pages: Sequence[int], contents: Bytes) -> None:
        shape = (len(pages), 2, *self.k[:, 0].shape)
        both = np.moveaxis(np.ascontiguousarray(contents).view(self.k.dtype).reshape(shape), 0, 2)
        self.k[:, list(pages)], self.v[:, list(pages)] = both


class DenseRows:
    """`opsin.ops.Rows`: copies by place."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: dict[int, Values] = {}

    def set(self, place: int, embeddings: Array, row: int, rows: int = 1) -> None:
        for i in range(rows):
            self.values[place + i] = data(embeddings)[row + i]

    def clear(self, place: int = 0, rows: int | None = None) -> None:
        last = self.count if rows is None else place + rows
        self.values = {i: v for i, v in self.values.items() if not place <= i < last}


class Reference(RecurrentReference):
    """The `Ops` of NumPy. `wide` computes in float64."""

    def __init__(self, *, wide: bool = False) -> None:
        self.kind = np.float64 if wide else np.float32

    def array(self, values: Values) -> Array:
        integer = np.issubdtype(values.dtype, np.integer)
        values = values.astype(np.int32 if integer else self.kind)
        return Array(self, values, tuple(int(n) for n in values.shape), "i32" if integer else "f32")

    def constant(self, values: Values) -> Array:
        return self.array(values)

    def pack(self, raw: Raw, *, rounded: bool = False) -> Weight:
        kind = by_id(raw.type)
        outputs, inputs = raw.shape
        stored = np.empty(outputs * kind.row_bytes(inputs), np.uint8)
        raw.read(0, outputs, stored)
        return DenseWeight(kind.decode(stored.reshape(-1, kind.bytes)).reshape(outputs, inputs))

    def stored(self, raw: Raw) -> Weight:
        return self.pack(raw)

    def linear(
        self, x: Array, w: Weight, bias: Array | None = None, residual: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:  # fmt: skip
        assert isinstance(w, DenseWeight)
        y = data(x) @ w.values.astype(self.kind).T
        if bias is not None:
            y = y + data(bias)
        if activation is not None:
            y = activated(y, activation)
        return self.array(y if residual is None else y + data(residual))

    def embed(self, ids: Array, w: Weight) -> Array:
        assert isinstance(w, DenseWeight)
        return self.array(w.values[data(ids)])

    def take(self, x: Array, rows: Array) -> Array:
        return self.array(data(x)[data(rows)])

    def put(self, x: Array, y: Array, places: Array) -> Array:
        which, rows = data(places), data(x).copy()
        rows[which >= 0] = data(y)[which[which >= 0]]
        return self.array(rows)

    def rows(self, count: int) -> DenseRows:
        return DenseRows(count)

    def overlay(self, x: Array, rows: Rows) -> Array:
        assert isinstance(rows, DenseRows)
        y = data(x).copy()
        for place, row in rows.values.items():
            if place < len(y):
                y[place] = row[: x.width]
        return self.array(y)

    def add_rows(self, x: Array, rows: Rows, first: int) -> Array:
        assert isinstance(rows, DenseRows)
        y = data(x).copy()
        for place, row in rows.values.items():
            if place < len(y):
                y[place] += row[first : first + x.width]
        return self.array(y)

    def fold(self, x: Array, k: int) -> Array:
        v = data(x)
        return self.array(v.reshape(len(v) // k, k * v.shape[1]))

    def mean_rows(self, x: Array, k: int) -> Array:
        v = data(x)
        return self.array(v.reshape(len(v) // k, k, v.shape[1]).mean(1))

    def rms_norm(self, x: Array, w: Array | None, eps: float) -> Array:
        v = data(x)
        y = v / np.sqrt((v * v).mean(-1, keepdims=True) + self.kind(eps))
        return self.array(y if w is None else y * data(w))

    def layer_norm(self, x: Array, w: Array, b: Array | None, eps: float) -> Array:
        v = data(x)
        centred = v - v.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + self.kind(eps)) * data(w)
        return self.array(y if b is None else y + data(b))

    def rope_table(
        self, positions: Array, frequencies: Array, scale: float = 1.0, axis: Array | None = None, *,
        growth: Array | None = None, every: int = 1,
    ) -> Array:  # fmt: skip
        place = data(positions).astype(np.float64)
        place = place[:, None] if axis is None else place[:, data(axis)]
        angles = place * data(frequencies).astype(np.float64)[None]
        table = np.stack([np.cos(angles), np.sin(angles)], 1) * scale
        if growth is not None:
            steps = np.clip(data(positions).reshape(len(place), -1)[:, 0] // every, 0, growth.width - 1)
            table = table * data(growth).astype(np.float64)[steps][:, None, None]
        return self.array(table)

    def rope(self, x: Array, table: Array, pairing: Pairing) -> Array:
        v, cos, sin = data(x), data(table)[:, 0][:, None], data(table)[:, 1][:, None]
        pairs = cos.shape[-1]
        y, place = v.copy(), np.arange(pairs)
        a = {"neighbours": 2 * place, "halves": place, "quarters": place + place // max(1, pairs // 2) * (pairs // 2)}[
            pairing
        ]
        b = a + {"neighbours": 1, "halves": pairs, "quarters": pairs // 2}[pairing]
        y[..., a] = v[..., a] * cos - v[..., b] * sin
        y[..., b] = v[..., a] * sin + v[..., b] * cos
        return self.array(y)

    def glu(self, gate: Array, up: Array, kind: Glu) -> Array:
        if kind == "swiglu_oai":  # OpenAI's
            low = np.minimum(data(gate), self.kind(7))
            return self.array(low / (1 + np.exp(self.kind(-1.702) * low)) * (np.clip(data(up), -7, 7) + 1))
        return self.array(activated(data(gate), kind) * data(up))

    def activate(self, x: Array, kind: Activation) -> Array:
        return self.array(activated(data(x), kind))

    def add(self, x: Array, y: Array) -> Array:
        return self.array(data(x) + data(y))

    def multiply(self, x: Array, y: Array) -> Array:
        return self.array(data(x) * data(y))

    def scale(self, x: Array, factor: float) -> Array:
        return self.array(data(x) * self.kind(factor))

    def clamp(self, x: Array, least: float, most: float) -> Array:
        return self.array(np.clip(data(x), self.kind(least), self.kind(most)))

    def softcap(self, x: Array, cap: float) -> Array:
        return self.array(cap * np.tanh(data(x).astype(np.float64) / cap))

    def pages(self, *, layers: int, heads: int, width: int, count: int, kind: PageType) -> Pages:
        shape = (layers, count, PAGE, heads, width)
        return DensePages(np.zeros(shape, self.kind), np.zeros(shape, self.kind))

    def store(self, pages: Pages, layer: int, k: Array, v: Array, slots: Array) -> None:
        assert isinstance(pages, DensePages)
        for row, slot in enumerate(data(slots)):
            if slot >= 0:
                pages.k[layer, slot // PAGE, slot % PAGE] = data(k)[row]
                pages.v[layer, slot // PAGE, slot % PAGE] = data(v)[row]

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
        queries, keys, values = data(q), data(k), data(v)
        starts = np.arange(len(queries)) * parts // len(queries) * (len(keys) // parts)
        repeats = queries.shape[1] // keys.shape[1]
        out = np.zeros(queries.shape, self.kind)
        for row, query in enumerate(queries):
            low, high = int(data(first)[row]), int(data(last)[row])
            seen = slice(int(starts[row]) + low, int(starts[row]) + high)
            some = np.repeat(keys[seen], repeats, axis=1)  # [keys, query heads, width]
            if len(some):
                scores = np.einsum("hd,khd->hk", query, some) * self.kind(scale)
                if softcap > 0:
                    scores = softcap * np.tanh(scores / softcap)
                if bias is not None:
                    scores = scores + data(bias)[row % len(data(bias)), :, low:high]
                weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), np.finfo(self.kind).min))
                weights /= np.maximum(weights.sum(-1, keepdims=True), np.finfo(self.kind).tiny)
                out[row] = np.einsum("hk,khd->hd", weights, np.repeat(values[seen], repeats, axis=1))
        return self.array(out)

    def attention_weights(
        self, q: Array, pages: Pages, layer: int, reads: Reads, *, scale: float, softcap: float = 0.0,
        sinks: Array | None = None, alibi: Alibi | None = None,
    ) -> Array:  # fmt: skip
        assert isinstance(pages, DensePages)
        queries, last = data(q), data(reads.last)
        out = np.zeros((*queries.shape[:2], int(last.max(initial=0))), self.kind)
        for row, query in enumerate(queries):
            a, b = int(data(reads.first)[row]), int(last[row])
            if a < b:
                keys = self._rows(pages.k, layer, reads, row, query.shape[0])[a:b]
                scores = np.einsum("hd,khd->hk", query, keys) * self.kind(scale)
                if softcap > 0:
                    scores = softcap * np.tanh(scores / softcap)
                if alibi is not None:
                    far = np.abs(int(data(alibi.places)[row]) - np.arange(a, b))
                    scores = scores - np.outer(data(alibi.slopes), far).astype(self.kind)
                if sinks is not None:
                    scores = np.concatenate([scores, data(sinks)[:, None]], 1)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                out[row, :, a:b] = (weights / weights.sum(-1, keepdims=True))[:, : b - a]
        return self.array(out)

    def apply_weights(self, weights: Array, pages: Pages, layer: int, reads: Reads) -> Array:
        assert isinstance(pages, DensePages)
        w = data(weights)
        out = np.zeros((*w.shape[:2], pages.v.shape[-1]), self.kind)
        for row in range(w.shape[0]):
            values = self._rows(pages.v, layer, reads, row, w.shape[1])
            n = min(len(values), w.shape[2])
            out[row] = np.einsum("hk,khd->hd", w[row, :, :n], values[:n])
        return self.array(out)

    def _rows(self, pool: Values, layer: int, reads: Reads, row: int, heads: int) -> Values:
        """Keys or values of a row's sequence, as [keys, query heads, width]."""
        table = data(reads.tables)[data(reads.sequence)[row]]
        whole = pool[layer][table].reshape(-1, *pool.shape[3:])
        return np.repeat(whole, heads // pool.shape[3], axis=1)

    def candidates(self, x: Array, k: Size) -> tuple[Array, Array, Array]:
        places = np.argsort(-data(x), axis=1, kind="stable")[:, : most(k)]
        values = np.take_along_axis(data(x), places, axis=1)
        with np.errstate(invalid="ignore"):
            sums = np.exp(data(x) - values[:, :1]).sum(axis=1)
        return self.array(places), self.array(values), self.array(sums)

    def pack_experts(self, raw: Raw, experts: int) -> Stack:
        whole = self.pack(raw)
        assert isinstance(whole, DenseWeight)
        return DenseStack(whole.values.reshape(experts, -1, raw.shape[1]))

    def route(self, logits: Array, how: Routing, bias: Array | None = None, gains: Array | None = None) -> Routes:
        x = data(logits)
        scores = 1 / (1 + np.exp(-x))
        if how.gating == "softmax":
            scores = np.exp(x - x.max(-1, keepdims=True))
            scores = scores / scores.sum(-1, keepdims=True)
        merits = x if bias is None and how.groups == 1 else scores  # of two that round alike the larger is known
        merits = best_groups(merits if bias is None else merits + data(bias), how)
        chosen = np.argsort(-merits, axis=1, kind="stable")[:, : how.used]
        shares = np.take_along_axis(scores, chosen, axis=1)
        if how.normalised:
            shares = shares / (shares.sum(-1, keepdims=True) + self.kind(1e-20))
        shares = shares * self.kind(how.scale)
        if gains is not None:
            shares = shares * data(gains)[chosen]
        pairs = np.argsort(chosen.reshape(-1), kind="stable")
        places = np.argsort(pairs, kind="stable")
        return Routes(*(self.array(part.reshape(chosen.shape)) for part in (chosen, shares, pairs, places)))

    def spread(self, x: Array, routes: Routes, *, weighed: bool = False) -> Array:
        pairs = data(routes.pairs)
        y = data(x)[pairs // pairs.shape[1]]
        return self.array(y * data(routes.shares).reshape(-1)[pairs][..., None] if weighed else y)

    def experts(self, x: Array, w: Stack, routes: Routes, bias: Array | None = None) -> Array:
        assert isinstance(w, DenseStack)
        expert = data(routes.experts).reshape(-1)[data(routes.pairs)]
        y = np.zeros((*expert.shape, w.shape[1]), self.kind)
        for place in np.ndindex(expert.shape):
            y[place] = w.values[expert[place]].astype(self.kind) @ data(x)[place]
        return self.array(y if bias is None else y + data(bias)[expert])

    def join(self, x: Array, routes: Routes, residual: Array | None = None, *, weighed: bool = True) -> Array:
        values = data(x).reshape(-1, x.width)[data(routes.places)]  # [rows, used, width]
        y = (values * data(routes.shares)[..., None] if weighed else values).sum(1)
        return self.array(y if residual is None else y + data(residual))

    def gated(self, x: Array, by: Array, w: Array, residual: Array | None = None) -> Array:
        y = data(x) / (1 + np.exp(-(data(by) @ data(w))))[:, None]
        return self.array(y if residual is None else y + data(residual))

    def recorded(self, key: Hashable, build: Callable[..., Array], *inputs: npt.NDArray[np.generic]) -> Array:
        return build(self, *(self.array(values) for values in inputs))

    def reshape(self, x: Array, shape: tuple[Size, ...]) -> Array:
        return self.array(data(x).reshape(tuple(int(n) for n in shape if isinstance(n, int))))

    def cut(self, x: Array, start: int, stop: int) -> Array:
        return self.array(data(x)[..., start:stop])

    def numpy(self, x: Array) -> Values:
        return np.array(data(x))


def best_groups(merits: Values, how: Routing) -> Values:
    """Merits [rows, experts], -inf outside of a row's best groups."""
    if how.groups == 1:
        return merits
    groups = merits.reshape(len(merits), how.groups, -1)
    worth = np.sort(groups, axis=-1)[..., -2:].sum(-1)
    kept = np.argsort(-worth, axis=1, kind="stable")[:, : how.used_groups]
    mask = np.zeros(worth.shape, bool)
    np.put_along_axis(mask, kept, True, axis=1)
    return np.where(mask[..., None], groups, -np.inf).reshape(merits.shape)
