"""What stands behind a model that ranks: a score of one row's state, an encoder's first or a decoder's last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.keys import positive_float
from opsin.nn.module import Reader
from opsin.nn.parts import Linear, PlainLayerNorm
from opsin.ops import Array

_YES = "yes"
_POOLINGS: dict[int, Literal["mean", "cls"]] = {1: "mean", 2: "cls"}  # llama.cpp's numbers


@dataclass(frozen=True, eq=False)
class RankHead:
    """out(tanh(dense x)), or with a norm out(norm(gelu(dense x))), or out(x) alone.

    Attributes:
        is_yes: there are two outputs, for yes and no, of which a softmax is taken.
        pooling: what it reads of an encoder's states.
    """

    dense: Linear | None
    out: Linear
    is_yes: bool
    norm: PlainLayerNorm | None = None
    eps: float = 1e-5
    pooling: Literal["mean", "cls"] = "cls"

    @classmethod
    def load(cls, file: File, source: Reader, width: int) -> Self | None:
        """The head of a file; None where it has none. `width` of the model's states."""
        if not source.has("cls.output.weight"):
            return None
        out = Linear.read(source, "cls.output")
        dense = Linear.read(source, "cls") if source.has("cls.weight") else None
        if dense is not None:
            dense.check(width, width)
        out.check(width, out.outputs)
        prefix = file.get_str("general.architecture")
        labels = file.get_strs(f"{prefix}.classifier.output_labels", ())
        is_yes = [*labels][:1] == [_YES]
        if out.outputs != (2 if is_yes else 1):
            raise ModelError(f"{file.path} tells {out.outputs} classes apart", hint="a model that ranks has one")
        if dense is None or not source.has("cls.norm.weight"):
            return cls(dense, out, is_yes)
        norm, key = PlainLayerNorm.read(source, "cls.norm"), f"{prefix}.classifier.pooling_type"
        norm.check(width)
        told = file.get_int(key, 1)  # as llama.cpp takes it
        if told not in _POOLINGS:
            raise ModelError(f"{file.path}: {key} is {told}", hint="1 is the mean, 2 the first token")
        eps = positive_float(file, f"{prefix}.attention.layer_norm_epsilon", 1e-5)
        return cls(dense, out, is_yes, norm, eps, _POOLINGS[told])

    def scores(self, x: Array) -> Floats:
        """x [texts, width] -> [texts]: the output as it is, or the probability of yes."""
        if self.dense is not None and self.norm is not None:
            x = self.norm(self.dense(x, activation="gelu_erf"), self.eps)
        elif self.dense is not None:
            x = x.ops.softcap(self.dense(x), 1.0)  # tanh
        found = np.asarray(self.out(x).numpy(), np.float32)
        if not self.is_yes:
            return found[:, 0]
        rest = np.exp(found - found.max(axis=1, keepdims=True))
        yes: Floats = rest[:, 0] / rest.sum(axis=1)
        return yes
