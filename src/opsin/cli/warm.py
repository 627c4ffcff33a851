"""Compiles the kernels that usual model files need, by running each operation once on a little nothing."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from opsin.api.loading import open_device
from opsin.config import Config
from opsin.ops import Activation, Array, Ops, PageType, Pairing, Raw, Reads
from opsin.ops.device import Notice
from opsin.ops.recurrence import Runs
from opsin.quants import BY_NAME, QuantType

USUAL = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
)  # fmt: skip
_FLOATS = ("F32", "F16", "BF16")  # many rows of these are multiplied by kernels of their own
_ROWS, _PATCHES, _WIDTH, _HEAD = 2, 64, 256, 64


def warm(config: Config, notice: Notice) -> None:
    """Fill the cache folder. `notice` hears of every kernel that was not there."""
    device = open_device(config, threads=1, notice=notice)
    try:
        ops = device.eager()
        x = ops.constant(np.zeros((_ROWS, _WIDTH), np.float32))
        places = ops.constant(np.arange(_ROWS, dtype=np.int32))
        for name in USUAL:
            _weights(ops, BY_NAME[name], x, places)
        _rows(ops, x, places)
        _tower(ops)
        _recurrence(ops, x, places)
        for kind in get_args(PageType):
            _attention(ops, kind, x.reshape(_WIDTH // _HEAD, _HEAD), places)
    finally:
        device.close()


def _weights(ops: Ops, kind: QuantType, x: Array, ids: Array) -> None:
    def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
        into[:] = 0

    weight = ops.pack(Raw("warm", kind.id, (_WIDTH, _WIDTH), read), rounded=True)
    ops.linear(x, weight)
    ops.embed(ids, weight)


def _rows(ops: Ops, x: Array, places: Array) -> None:
    vector = ops.constant(np.zeros(_WIDTH, np.float32))
    ops.rms_norm(x, vector, 1e-5)
    ops.layer_norm(x, vector, vector, 1e-5)
    ops.add(x, x)
    ops.glu(x, x, "silu")
    ops.glu(x, x, "gelu")
    ops.put(x, ops.take(x, places), places)
    ops.candidates(x, 1)
    table = ops.rope_table(places, ops.constant(np.ones(_HEAD // 2, np.float32)))
    for pairing in get_args(Pairing):
        ops.rope(x.reshape(_WIDTH // _HEAD, _HEAD), table, pairing)


def _tower(ops: Ops) -> None:
    """What encoders of pictures need beside that."""
    x = ops.constant(np.zeros((_PATCHES, _WIDTH), np.float32))
    first, last = (ops.constant(np.full(_PATCHES, n, np.int32)) for n in (0, _PATCHES))
    heads = x.reshape(_WIDTH // _HEAD, _HEAD)
    for name in (*_FLOATS, "Q8_0"):
        raw = Raw("warm", BY_NAME[name].id, (_WIDTH, _WIDTH), lambda first, last, into: into.fill(0))
        weight = ops.pack(raw, rounded=True)
        ops.attend_dense(heads, heads, heads, first, last, scale=1.0, like=weight)
        for activation in (None, *get_args(Activation)):
            ops.linear(x, weight, activation=activation)
    ops.overlay(x, ops.rows(_PATCHES))
    ops.mean_rows(x, 4)


def _attention(ops: Ops, kind: PageType, x: Array, places: Array) -> None:
    zeros = ops.constant(np.zeros(_ROWS, np.int32))
    heads = _WIDTH // _HEAD
    pages = ops.pages(layers=1, heads=heads, width=_HEAD, count=1, kind=kind)
    ops.store(pages, 0, x, x, places)
    last = ops.constant(np.arange(1, _ROWS + 1, dtype=np.int32))
    table = ops.constant(np.zeros((1, 1), np.int32))
    reads = Reads(tables=table, sequence=zeros, first=zeros, last=last)
    ops.attend(x, pages, 0, reads, scale=1.0)


def _recurrence(ops: Ops, x: Array, places: Array) -> None:
    rate = ops.constant(np.zeros(_WIDTH // _HEAD, np.float32))
    share = ops.activate(ops.decay(x[:, : _WIDTH // _HEAD], rate), "sigmoid")
    one = ops.constant(np.zeros(1, np.int32))
    runs = Runs(starts=places, reads=one, writes=one)
    w = ops.constant(np.zeros((4, _WIDTH), np.float32))
    y = ops.conv_state(x, w, ops.states(layers=1, shape=(3, _WIDTH), count=1), 0, runs, "silu")
    states = ops.states(layers=1, shape=(_WIDTH // _HEAD, _HEAD, _HEAD), count=1)
    ops.delta(y, y, y, share, share, states, 0, runs, scale=1.0, eps=1e-6)
    ops.glu(y, y, "sigmoid")
