"""What stands behind a model that ranks: a score of one row's state, an encoder's first or a decoder's last."""

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

_YES = "yes"


@dataclass(frozen=True, eq=False)
class RankHead:
    """out(tanh(dense x)), or out(x) alone. `is_yes`: two outputs, for yes and no, of which a softmax is taken."""

    dense: Linear | None
    out: Linear
    is_yes: bool

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
        labels = file.get_strs(f"{file.get_str('general.architecture')}.classifier.output_labels", ())
        is_yes = [*labels][:1] == [_YES]
        if out.outputs != (2 if is_yes else 1):
            raise ModelError(f"{file.path} tells {out.outputs} classes apart", hint="a model that ranks has one")
        return cls(dense, out, is_yes)

    def scores(self, x: Array) -> Floats:
        """x [texts, width] -> [texts]: the output as it is, or the probability of yes."""
        if self.dense is not None:
            x = x.ops.softcap(self.dense(x), 1.0)  # tanh
        found = np.asarray(self.out(x).numpy(), np.float32)
        if not self.is_yes:
            return found[:, 0]
        rest = np.exp(found - found.max(axis=1, keepdims=True))
        yes: Floats = rest[:, 0] / rest.sum(axis=1)
        return yes
