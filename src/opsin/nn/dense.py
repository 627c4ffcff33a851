"""Matrices behind a pooled embedding, as EmbeddingGemma has two: sentence-transformers' modules of the kind Dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.module import Reader
from opsin.nn.parts import Linear
from opsin.ops import Array

_NAMES = ("dense_2", "dense_3")


@dataclass(frozen=True, eq=False)
class DenseHead:
    """One matrix after the other. `is_bounded`: behind which of them a tanh follows."""

    layers: tuple[Linear, ...]
    is_bounded: tuple[bool, ...]

    @classmethod
    def load(cls, file: File, source: Reader, width: int) -> Self | None:
        """Those of a file; None where it has none. `width` of the model's states."""
        names = [name for name in _NAMES if source.has(f"{name}.weight")]
        found, bounded = tuple(Linear.read(source, name) for name in names), []
        at = width
        for name, layer in zip(names, found, strict=True):
            layer.check(at, layer.outputs)
            at = layer.outputs
            key = f"{file.get_str('general.architecture')}.{name}_activation"
            told = file.get_str(key, "")
            if told not in ("", "tanh"):
                raise ModelError(f"{file.path}: {key} is {told!r:.40}", hint="only tanh is known")
            bounded.append(told == "tanh")
        return cls(found, tuple(bounded)) if found else None

    @property
    def width(self) -> int:
        """Of what comes out."""
        return self.layers[-1].outputs

    def __call__(self, x: Array) -> Floats:
        """x [texts, inputs] -> [texts, width]."""
        for layer, bounded in zip(self.layers, self.is_bounded, strict=True):
            x = x.ops.softcap(layer(x), 1.0) if bounded else layer(x)
        made: Floats = np.asarray(x.numpy(), np.float32)
        return made
