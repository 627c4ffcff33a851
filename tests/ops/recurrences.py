"""Rows of sequences through the operations of recurrent state, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from samples import normal

from opsin.ops import Activation, Array, Ops
from opsin.ops.recurrence import Runs, States

Turn = Sequence[
    tuple[int, int, int]
]  # of each sequence: rows, the slot it reads (negative: none) and the one it writes
SLOTS, LAYER, LAYERS = 5, 1, 2


def runs_of(ops: Ops, turn: Turn) -> Runs:
    rows, reads, writes = (np.array(column, np.int32) for column in zip(*turn, strict=True))
    starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    return Runs(ops.constant(starts), ops.constant(reads), ops.constant(writes))


def convolved(
    ops: Ops, turns: Sequence[Turn], channels: int, steps: int, kind: Activation | None = None, *,
    rows: Sequence[np.ndarray] | None = None,
) -> list[Array]:  # fmt: skip
    """What `conv_state` gives for each turn. `rows`: those of each turn; else they are drawn."""
    states = ops.states(layers=LAYERS, shape=(steps - 1, channels), count=SLOTS)
    w = ops.constant(normal(steps, channels, seed=7))
    given = rows or [normal(sum(n for n, _, _ in turn), channels, seed=i) for i, turn in enumerate(turns)]
    return [
        ops.conv_state(ops.constant(x), w, states, LAYER, runs_of(ops, turn), kind)
        for x, turn in zip(given, turns, strict=True)
    ]


class Rules:
    """Inputs of `delta` for some rows: heads of keys and of values, their widths."""

    def __init__(self, rows: int, heads: tuple[int, int, int, int], seed: int = 0) -> None:
        few, many, keys, values = self.heads = heads
        self.q, self.k = normal(rows, few * keys, seed=seed), normal(rows, few * keys, seed=seed + 1)
        self.v = normal(rows, many * values, seed=seed + 2)
        self.decay = np.exp(-np.abs(normal(rows, many, seed=seed + 3)))
        self.beta = 1 / (1 + np.exp(-normal(rows, many, seed=seed + 4)))

    def run(
        self, ops: Ops, states: States, turn: Turn, at: slice = slice(None), *, grouped: bool = False
    ) -> Array:  # fmt: skip
        parts = (ops.constant(x[at]) for x in (self.q, self.k, self.v, self.decay, self.beta))
        runs = runs_of(ops, turn)
        return ops.delta(*parts, states, LAYER, runs, scale=0.3, eps=1e-6, grouped=grouped)

    def states(self, ops: Ops) -> States:
        return ops.states(layers=LAYERS, shape=(self.heads[1], *self.heads[2:]), count=SLOTS)


def ruled(ops: Ops, turns: Sequence[Turn], heads: tuple[int, int, int, int], grouped: bool = False) -> list[Array]:
    """What `delta` gives for each turn."""
    rules = [Rules(sum(n for n, _, _ in turn), heads, seed=10 * i) for i, turn in enumerate(turns)]
    states = rules[0].states(ops)
    return [rule.run(ops, states, turn, grouped=grouped) for rule, turn in zip(rules, turns, strict=True)]
