"""Feed-forward parts of decoders."""

from __future__ import annotations

from opsin.errors import ModelError
from opsin.nn.module import Module
from opsin.nn.parts import Linear
from opsin.ops import Array, Glu


class GatedFfn(Module):
    """down(activation(gate x) * up x) (Shazeer 2020); without a gate matrix, up holds both, gate first."""

    ffn_gate: Linear | None
    ffn_up: Linear
    ffn_down: Linear

    def __call__(self, x: Array, kind: Glu, residual: Array | None = None) -> Array:
        if self.ffn_gate is None and self.ffn_up.outputs == self.ffn_down.inputs:
            raise ModelError(f"there is no tensor {self.tensor('ffn_gate.weight')}", hint="the file is incomplete")
        up = self.ffn_up(x)
        if self.ffn_gate is not None:
            return self.ffn_down(x.ops.glu(self.ffn_gate(x), up, kind), residual)
        half = up.width // 2
        return self.ffn_down(x.ops.glu(up[:, :half], up[:, half:], kind), residual)
