"""Gated delta networks (Yang et al. 2024, arXiv 2412.06464): all that a layer remembers is one matrix a head.

A row's queries, keys and values pass a short causal convolution; its keys then write values into the matrix, which
decays, and its queries read it. Their state is two: what the convolution looks back to, and the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.batch import Batch, StateShape
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader
from opsin.nn.parts import Linear, RmsNorm
from opsin.ops import Array

CONVOLUTION, MATRICES = "conv", "delta"  # names of the states
EPS = 1e-6  # under the root of a query's or a key's length
MOST, WIDEST, MOST_STEPS = 1 << 12, 1 << 12, 64  # heads, their width, steps; published ones have 64, 128 and 4


@dataclass(frozen=True)
class DeltaHeads:
    """Heads of keys (and queries) and of values, their widths, and the steps of the convolution.

    `grouped`: value heads that share a key head stand together; else value head j reads key head j % key heads.
    """

    keys: int
    values: int
    key_width: int
    value_width: int
    steps: int
    grouped: bool = False

    @property
    def all_keys(self) -> int:
        return self.keys * self.key_width

    @property
    def all_values(self) -> int:
        return self.values * self.value_width

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys and values."""
        return 2 * self.all_keys + self.all_values

    def states(self, layers: int) -> dict[str, StateShape]:
        return {
            CONVOLUTION: StateShape(layers, (self.steps - 1, self.channels)),
            MATRICES: StateShape(layers, (self.values, self.key_width, self.value_width)),
        }


def delta_heads_of(file: File, prefix: str, *, grouped: bool = False) -> DeltaHeads:
    """The shape in a file: `{prefix}.ssm.*`. `grouped` counts where it does not say (ssm.v_head_reordered).

    Raises ModelError for numbers that do not go together.
    """
    names = {"group_count": MOST, "time_step_rank": MOST, "state_size": WIDEST, "inner_size": MOST * WIDEST,
             "conv_kernel": MOST_STEPS}  # fmt: skip
    told = {name: positive_int(file, f"{prefix}.ssm.{name}") for name in names}
    for name, most in names.items():
        if told[name] > most:
            raise ModelError(f"{prefix}.ssm.{name} is {told[name]}, more than {most}", hint="the file is damaged")
    keys, values, key_width, inner, steps = told.values()
    if values % keys or inner % values or inner // values > WIDEST or steps < 2:
        raise ModelError(
            f"{prefix}.ssm: {keys} heads of keys, {values} of values, {inner} values, {steps} steps",
            hint="the file is damaged",
        )
    told_order = file.get_bool(f"{prefix}.ssm.v_head_reordered", not grouped)
    return DeltaHeads(keys, values, key_width, inner // values, steps, grouped=not told_order)


class Taps(Module):
    """The weights of a convolution of each channel: [channels, steps] in files, [steps, channels] here."""

    weight: Array

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part, values = cls.__new__(cls), source.values(f"{path}.weight")
        part._path, part.weight = path, source.ops.constant(np.ascontiguousarray(values.reshape(len(values), -1).T))
        return part


class Bias(Module):
    """A vector that is called a bias in some files, and nothing more in others."""

    values: Array

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = cls.__new__(cls)
        part._path = path if source.has(path) else f"{path}.bias"
        part.values = source.ops.constant(source.values(part._path).reshape(-1))
        return part


class DeltaLayer(Module):
    attn_qkv: Linear
    attn_gate: Linear
    ssm_alpha: Linear
    ssm_beta: Linear
    ssm_conv1d: Taps
    ssm_a: Array  # the rate of decay, negative
    ssm_dt: Bias
    ssm_norm: RmsNorm
    ssm_out: Linear

    def check(self, width: int, heads: DeltaHeads) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.attn_qkv.check(width, heads.channels)
        self.attn_gate.check(width, heads.all_values)
        self.ssm_alpha.check(width, heads.values)
        self.ssm_beta.check(width, heads.values)
        self.ssm_out.check(heads.all_values, width)
        self.ssm_norm.check(heads.value_width)
        vectors = {
            "ssm_conv1d.weight": (self.ssm_conv1d.weight, (heads.steps, heads.channels)),
            "ssm_a": (self.ssm_a, (heads.values,)), "ssm_dt.bias": (self.ssm_dt.values, (heads.values,)),
        }  # fmt: skip
        for name, (values, shape) in vectors.items():
            if values.shape != shape:
                raise ModelError(f"{self.tensor(name)} is {values.shape[::-1]}, where {shape[::-1]} is needed")

    def __call__(
        self, x: Array, batch: Batch, *, layer: int, heads: DeltaHeads, eps: float, name: str, residual: Array
    ) -> Array:
        """x [rows, width] -> the same shape, with `residual` added. `layer` counts the recurrent ones."""
        ops, runs, keys = x.ops, batch.runs, heads.all_keys
        assert runs is not None
        taps = self.ssm_conv1d.weight
        mixed = ops.conv_state(self.attn_qkv(x), taps, batch.states[CONVOLUTION], layer, runs, "silu")
        parts = (mixed[:, :keys], mixed[:, keys : 2 * keys], mixed[:, 2 * keys :])
        decay = ops.decay(ops.linear(x, self.ssm_alpha.weight, self.ssm_dt.values), self.ssm_a)
        beta = self.ssm_beta(x, activation="sigmoid")
        seen = ops.delta(
            *parts, decay, beta, batch.states[MATRICES], layer, runs, scale=heads.key_width**-0.5, eps=EPS,
            grouped=heads.grouped,
        )  # fmt: skip
        normed = self.ssm_norm(seen.reshape(heads.values, heads.value_width), eps)
        out = ops.glu(self.attn_gate(x), normed.reshape(heads.all_values), "silu")
        return batch.tap(f"{name}.sum", self.ssm_out(out, residual))
