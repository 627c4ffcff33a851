"""Recurrent state in plain NumPy: the part of the definition for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from opsin.arrays import Bytes
from opsin.ops import Activation, Array
from opsin.ops.recurrence import Runs, States
from opsin.ops.reference_values import Values, activated, data


@dataclass(frozen=True, eq=False)
class DenseStates:
    values: Values  # [layers, slots, *shape]

    @property
    def layers(self) -> int:
        return int(self.values.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.values.shape[2:])

    @property
    def count(self) -> int:
        return int(self.values.shape[1])

    @property
    def bytes(self) -> int:
        return self.values.nbytes

    def read(self, slot: int) -> Bytes:
        return np.ascontiguousarray(self.values[:, slot]).reshape(-1).view(np.uint8)

    def write(self, slot: int, contents: Bytes) -> None:
        self.values[:, slot] = contents.view(self.values.dtype).reshape(self.values[:, slot].shape)

    def runs(self, layer: int, runs: Runs) -> Iterator[tuple[slice, Values, Values]]:
        """Of each sequence with rows: which these are, a copy of the state before, and the place of the one after."""
        slots, starts = self.values[layer], data(runs.starts)
        for i, (read, write) in enumerate(zip(data(runs.reads), data(runs.writes), strict=True)):
            if starts[i] < starts[i + 1]:
                before = slots[read].copy() if read >= 0 else np.zeros_like(slots[0])
                yield slice(int(starts[i]), int(starts[i + 1])), before, slots[write]


def convolve(x: Values, w: Values, runs: Iterator[tuple[slice, Values, Values]]) -> Values:
    """`conv_state` without an activation."""
    out = np.zeros_like(x)
    for rows, before, after in runs:
        known, count = np.concatenate([before, x[rows]]), rows.stop - rows.start
        out[rows] = sum(tap * known[i : i + count] for i, tap in enumerate(w))
        after[...] = known[count:]
    return out


def delta_rule(
    q: Values, k: Values, v: Values, decay: Values, beta: Values, runs: Iterator[tuple[slice, Values, Values]], *,
    scale: float, eps: float, grouped: bool,
) -> Values:  # fmt: skip
    """`delta` of q and k [rows, key heads, key width] and v [rows, value heads, value width]."""
    heads, groups, number = v.shape[1], q.shape[1], v.dtype.type
    which = np.arange(heads) // (heads // groups) if grouped else np.arange(heads) % groups
    queries, keys = (x / np.sqrt((x * x).sum(-1, keepdims=True) + number(eps)) for x in (q, k))
    out = np.zeros_like(v)
    for rows, state, after in runs:
        for row in range(rows.start, rows.stop):
            query, key = queries[row][which], keys[row][which]  # [value heads, key width]
            state *= decay[row][:, None, None]
            error = v[row] - np.einsum("hk,hkv->hv", key, state)
            state += key[:, :, None] * (beta[row][:, None] * error)[:, None]
            out[row] = np.einsum("hk,hkv->hv", query, state) * number(scale)
        after[...] = state
    return out


class RecurrentReference(ABC):
    """The part of `Reference`."""

    kind: Any

    @abstractmethod
    def array(self, values: Values) -> Array: ...

    def states(self, *, layers: int, shape: tuple[int, ...], count: int) -> States:
        return DenseStates(np.zeros((layers, count, *shape), self.kind))

    def conv_state(
        self, x: Array, w: Array, states: States, layer: int, runs: Runs, kind: Activation | None = None
    ) -> Array:
        assert isinstance(states, DenseStates)
        y = convolve(data(x), data(w), states.runs(layer, runs))
        return self.array(y if kind is None else activated(y, kind))

    def delta(
        self, q: Array, k: Array, v: Array, decay: Array, beta: Array, states: States, layer: int, runs: Runs, *,
        scale: float, eps: float, grouped: bool = False,
    ) -> Array:  # fmt: skip
        assert isinstance(states, DenseStates)
        keys, values = ((len(data(v)), -1, width) for width in states.shape[1:])
        each = states.runs(layer, runs)
        y = delta_rule(
            data(q).reshape(keys), data(k).reshape(keys), data(v).reshape(values), data(decay), data(beta), each,
            scale=scale, eps=eps, grouped=grouped,
        )  # fmt: skip
        return self.array(y.reshape(len(y), -1))

    def decay(self, x: Array, rate: Array) -> Array:
        return self.array(np.exp(data(rate) * np.logaddexp(0, data(x).astype(np.float64))))
