"""The small parts: linear layers, embeddings, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.nn.module import Module, Reader
from opsin.ops import Activation, Array, Weight


class Gate(Module):
    """One number, by which something is multiplied."""

    value: float

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = cls.__new__(cls)
        values = source.values(path).reshape(-1)
        if len(values) != 1:
            raise ModelError(f"{path} has {len(values)} values, where 1 is needed")
        part._path, part.value = path, float(values[0])
        return part

    @classmethod
    def is_there(cls, source: Reader, path: str) -> bool:
        return source.has(path)


class Linear(Module):
    """y = x w' + bias."""

    weight: Weight
    bias: Array | None

    def __call__(self, x: Array, residual: Array | None = None, activation: Activation | None = None) -> Array:
        """x [rows, inputs] -> [rows, outputs]; the activation comes before the residual."""
        if x.width != self.inputs:
            raise ModelError(f"{self.tensor('weight')} takes {self.inputs} inputs, and is given {x.width}")
        if self.bias is not None:
            _fit(self, "bias", self.bias, self.outputs)
        return x.ops.linear(x, self.weight, self.bias, residual, activation=activation)

    def check(self, inputs: int, outputs: int) -> None:
        """Raises ModelError where the file says other sizes than its tensors have."""
        if (self.inputs, self.outputs) != (inputs, outputs):
            raise ModelError(
                f"{self.tensor('weight')} makes {self.outputs} of {self.inputs} values, where {outputs} of {inputs} "
                "are needed"
            )
        if self.bias is not None:
            _fit(self, "bias", self.bias, outputs)

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]


class ClampedLinear(Linear):
    """A layer that may keep what it takes, and what it gives, within bounds: all four, or none."""

    input_min: Gate | None
    input_max: Gate | None
    output_min: Gate | None
    output_max: Gate | None

    def check(self, inputs: int, outputs: int) -> None:
        super().check(inputs, outputs)
        bounds = {name: getattr(self, name) for name in ("input_min", "input_max", "output_min", "output_max")}
        missing = [name for name, bound in bounds.items() if bound is None]
        if missing and len(missing) < len(bounds):
            raise ModelError(f"there is no tensor {self.tensor(missing[0])}", hint="the file is incomplete")

    def __call__(self, x: Array, residual: Array | None = None, activation: Activation | None = None) -> Array:
        assert residual is None and activation is None, "bounds hold for what comes out"
        return _within(super().__call__(_within(x, self.input_min, self.input_max)), self.output_min, self.output_max)


class Reordered(Linear):
    """A layer whose matrix stands in files in another order than it is used in."""

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = cls.__new__(cls)
        part._path, part.bias = path, None
        part.weight = source.weight(f"{path}.weight", change=cls.reorder)
        return part

    @staticmethod
    def reorder(values: Floats) -> Floats:
        """The matrix [outputs, inputs], of what a file holds. Raises ModelError where that is of another shape."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class JoinedLinear:
    """A layer over several arrays side by side, which are never joined: each has its own columns of the matrix."""

    weights: tuple[Weight, ...]
    bias: Array
    path: str

    @classmethod
    def load(cls, source: Reader, path: str, columns: Sequence[slice]) -> JoinedLinear:
        """`columns`: those of each array."""

        def own(which: slice) -> Weight:
            return source.weight(f"{path}.weight", change=lambda values: np.ascontiguousarray(values[:, which]))

        weights = tuple(own(which) for which in columns)
        return cls(weights, source.ops.constant(source.values(f"{path}.bias").reshape(-1)), path)

    def check(self, inputs: int, outputs: int) -> None:
        """Raises ModelError unless each of the arrays has so many values, and the result has so many."""
        shapes = {weight.shape for weight in self.weights}
        if shapes != {(outputs, inputs)}:
            raise ModelError(f"{self.path}.weight is no {outputs} x {len(self.weights)} times {inputs}")
        if self.bias.shape != (outputs,):
            raise ModelError(f"{self.path}.bias has {self.bias.width} values, where {outputs} are needed")

    @property
    def outputs(self) -> int:
        return self.weights[0].shape[0]

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """[rows, inputs] of each -> [rows, outputs]."""
        ops = self.bias.ops
        y = ops.linear(arrays[0], self.weights[0], self.bias)
        for x, weight in zip(arrays[1:], self.weights[1:], strict=True):
            y = ops.linear(x, weight, None, y)
        return y


class Embedding(Module):
    """Rows of a table by id; the same table makes logits where a model ties them."""

    weight: Weight

    def __call__(self, ids: Array) -> Array:
        return ids.ops.embed(ids, self.weight)

    def logits(self, x: Array) -> Array:
        return x.ops.linear(x, self.weight)


class StoredEmbedding(Embedding):
    """A table that stays in its file: a batch reads the rows that it needs."""

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part = cls.__new__(cls)
        part._path, part.weight = path, source.stored(f"{path}.weight")
        return part


class RmsNorm(Module):
    weight: Array

    def check(self, width: int) -> None:
        """Raises ModelError where it is made for another width."""
        _fit(self, "weight", self.weight, width)

    def __call__(self, x: Array, eps: float) -> Array:
        _fit(self, "weight", self.weight, x.width)
        return x.ops.rms_norm(x, self.weight, eps)


class FfnNorm(RmsNorm):
    """The norm before a feed-forward part, which some files call the one after attention."""

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        own, other = f"{path}.ffn_norm", f"{path}.post_attention_norm"
        is_other = source.has(f"{other}.weight") and not source.has(f"{own}.weight")
        return super().read(source, other if is_other else own)


class LayerNorm(Module):
    weight: Array
    bias: Array

    def check(self, width: int) -> None:
        """Raises ModelError where it is made for another width."""
        _fit(self, "weight", self.weight, width)
        _fit(self, "bias", self.bias, width)

    def __call__(self, x: Array, eps: float) -> Array:
        return x.ops.layer_norm(x, self.weight, self.bias, eps)


class PlainLayerNorm(Module):
    """A layer norm without a bias."""

    weight: Array

    def check(self, width: int) -> None:
        """Raises ModelError where it is made for another width."""
        _fit(self, "weight", self.weight, width)

    def __call__(self, x: Array, eps: float) -> Array:
        return x.ops.layer_norm(x, self.weight, None, eps)


def _fit(part: Module, name: str, values: Array, width: int) -> None:
    """A kernel would read past the end of a vector that is too short."""
    if values.shape != (width,):
        raise ModelError(f"{part.tensor(name)} has {values.width} values, where {width} are needed")


def _within(x: Array, least: Gate | None, most: Gate | None) -> Array:
    low, high = -math.inf if least is None else least.value, math.inf if most is None else most.value
    return x if (low, high) == (-math.inf, math.inf) else x.ops.clamp(x, low, high)
