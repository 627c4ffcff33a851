"""Matrices behind a pooled embedding, as EmbeddingGemma has two: sentence-transformers' modules of the kind Dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.nn.module import Reader
from opsin.nn.parts import Linear
from opsin.ops import Array

_NAMES = ("dense_2", "dense_3")


@dataclass(frozen=True, eq=False)
class DenseHead:
    """One matrix after the other, with nothing between."""

    layers: tuple[Linear, ...]

    @classmethod
    def load(cls, source: Reader, width: int) -> Self | None:
        """Those of a file; None where it has none. `width` of the model's states, which is that of what comes out."""
        found = tuple(Linear.read(source, name) for name in _NAMES if source.has(f"{name}.weight"))
        at = width
        for layer in found:
            layer.check(at, layer.outputs)
            at = layer.outputs
        if at != width:
            raise ModelError(f"{found[-1].tensor('weight')} makes {at} values, where {width} are needed")
        return cls(found) if found else None

    def __call__(self, x: Array) -> Floats:
        """x [texts, width] -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        made: Floats = np.asarray(x.numpy(), np.float32)
        return made
