"""Layers of a conformer (Gulati et al. 2020, arXiv 2005.08100), as GGUF's `a.blk.N.*`: of one sound, row after row.

A layer is half a feed-forward part, attention, a short convolution of each channel, and the other half. What a row asks
is held against keys and against their distances (Dai et al. 2019, arXiv 1901.02860), and the scores are capped.
In files conv_norm stands before the convolution and norm_conv behind it, and per_dim_scale is what softplus gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np

from opsin.errors import ModelError
from opsin.nn.attention import Heads
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import ClampedLinear, Linear, RmsNorm
from opsin.nn.waves import waves
from opsin.ops import Array, Ops, most

EPS = 1e-6  # of norms
SEEN, TAPS = 12, 5  # rows that a row sees, itself among them, and that a convolution does
KEYS = math.log(1 + math.e) / math.log(2)  # that keys are multiplied with


class HalfFfn(Module):
    """Half of what it gives is added."""

    norm: Annotated[RmsNorm, at("ffn_norm")]
    up: Annotated[ClampedLinear, at("ffn_up")]
    down: Annotated[ClampedLinear, at("ffn_down")]
    post_norm: Annotated[RmsNorm, at("ffn_post_norm")]

    def check(self, width: int, inner: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.norm.check(width)
        self.up.check(width, inner)
        self.down.check(inner, width)
        self.post_norm.check(width)

    def __call__(self, x: Array) -> Array:
        inner = x.ops.activate(self.up(self.norm(x, EPS)), "silu")
        return x + 0.5 * self.post_norm(self.down(inner), EPS)


class SecondFfn(HalfFfn):
    norm: Annotated[RmsNorm, at("ffn_norm_1")]
    up: Annotated[ClampedLinear, at("ffn_up_1")]
    down: Annotated[ClampedLinear, at("ffn_down_1")]
    post_norm: Annotated[RmsNorm, at("ffn_post_norm_1")]


@dataclass(frozen=True, eq=False)
class Sight:
    """What each row of a window sees, as keys of its own: those SEEN rows that end with it.

    Attributes:
        waves: [SEEN, width] sines and cosines of the distances.
        rows: [rows * SEEN] the row of each key, and
        distances: how far it is before.
        first, last: [rows] the keys that there are.
    """

    waves: Array
    rows: Array
    distances: Array
    first: Array
    last: Array

    @classmethod
    def of(cls, ops: Ops, rows: int, width: int) -> Sight:
        before = np.arange(SEEN - 1, -1, -1)
        row = np.arange(rows)[:, None] - before
        numbers = (np.maximum(0, row), np.tile(before, rows), np.sum(row < 0, axis=1), np.full(rows, SEEN))
        places = (ops.constant(number.reshape(-1).astype(np.int32)) for number in numbers)
        return cls(ops.constant(waves(SEEN, width)), *places)


class DistanceAttention(Module):
    norm: Annotated[RmsNorm, at("attn_pre_norm")]
    q: Annotated[ClampedLinear, at("attn_q")]
    k: Annotated[ClampedLinear, at("attn_k")]
    v: Annotated[ClampedLinear, at("attn_v")]
    scale: Annotated[Array, at("per_dim_scale.weight")]
    distance: Annotated[Linear, at("attn_k_rel")]
    out: Annotated[ClampedLinear, at("attn_out")]
    post_norm: Annotated[RmsNorm, at("attn_post_norm")]

    def check(self, heads: Heads) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        width = heads.query * heads.width
        for norm in (self.norm, self.post_norm):
            norm.check(width)
        for matrix in (self.q, self.k, self.v, self.distance, self.out):
            matrix.check(width, width)
        if self.scale.shape != (heads.width,):
            raise ModelError(f"{self.tensor('per_dim_scale.weight')} is {self.scale.shape}, not ({heads.width},)")

    def __call__(self, x: Array, sight: Sight, heads: Heads) -> Array:
        ops, inner, shape = x.ops, self.norm(x, EPS), (heads.query, heads.width)
        scales = ops.take(ops.reshape(self.scale, (1, heads.width)), ops.constant(np.zeros(heads.query, np.int32)))
        k = ops.take(KEYS * self.k(inner), sight.rows) + ops.take(self.distance(sight.waves), sight.distances)
        v = ops.take(self.v(inner), sight.rows)
        seen = ops.attend_dense(
            self.q(inner).reshape(*shape) * scales, k.reshape(*shape), v.reshape(*shape), sight.first, sight.last,
            scale=heads.scale, parts=most(x.shape[0]), softcap=heads.softcap,
        )  # fmt: skip
        return x + self.post_norm(self.out(seen.reshape(heads.query * heads.width)), EPS)


class ChannelTaps(Module):
    """What each channel is multiplied with, of a row and those before: [TAPS, channels], and nothing behind them."""

    weight: Array

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part, values = cls.__new__(cls), source.values(f"{path}.weight")
        if values.ndim != 2 or values.shape[1] != TAPS:
            raise ModelError(f"{path}.weight is {values.shape}; {TAPS} values of each channel are needed")
        part._path, part.weight = path, source.ops.constant(np.pad(values.T, ((0, 1), (0, 0))))
        return part


class CausalConvolution(Module):
    norm: Annotated[RmsNorm, at("conv_norm")]
    up: Annotated[ClampedLinear, at("conv_pw1")]
    taps: Annotated[ChannelTaps, at("conv_dw")]
    inner_norm: Annotated[RmsNorm, at("norm_conv")]
    down: Annotated[ClampedLinear, at("conv_pw2")]

    def check(self, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        for norm in (self.norm, self.inner_norm):
            norm.check(width)
        self.up.check(width, 2 * width)
        self.down.check(width, width)
        if self.taps.weight.width != width:
            raise ModelError(f"{self.taps.tensor('weight')} is of {self.taps.weight.width} channels, not {width}")

    def __call__(self, x: Array) -> Array:
        ops, both = x.ops, self.up(self.norm(x, EPS))
        inner = ops.glu(both[:, x.width :], both[:, : x.width], "sigmoid")
        row = np.arange(most(x.shape[0]))[:, None] - np.arange(TAPS - 1, -1, -1)
        rows, taps = np.maximum(0, row), np.where(row < 0, TAPS, np.arange(TAPS))
        each = [ops.constant(places.reshape(-1).astype(np.int32)) for places in (rows, taps)]
        mixed = float(TAPS) * ops.mean_rows(ops.take(inner, each[0]) * ops.take(self.taps.weight, each[1]), TAPS)
        return x + self.down(ops.activate(self.inner_norm(mixed, EPS), "silu"))


class ConformerLayer(Module):
    first: Annotated[HalfFfn, at("")]
    attention: Annotated[DistanceAttention, at("")]
    convolution: Annotated[CausalConvolution, at("")]
    second: Annotated[SecondFfn, at("")]
    norm: Annotated[RmsNorm, at("ln2")]

    def check(self, heads: Heads, inner: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        width = heads.query * heads.width
        self.first.check(width, inner)
        self.attention.check(heads)
        self.convolution.check(width)
        self.second.check(width, inner)
        self.norm.check(width)

    def __call__(self, x: Array, sight: Sight, heads: Heads) -> Array:
        x = self.convolution(self.attention(self.first(x), sight, heads))
        return self.norm(self.second(x), EPS)
