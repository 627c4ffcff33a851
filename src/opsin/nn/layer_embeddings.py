"""Embeddings that each layer of a decoder has of its own (Gemma 3n and 4), and how they come into its rows.

Their table has a row an id for all layers together, more than all other weights of a small model. It stays in the file.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

from opsin.errors import ModelError
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, RmsNorm, StoredEmbedding
from opsin.ops import Array


class LayerGate(Module):
    """How one layer takes its embeddings in: x grows by what a gate, which x opens, lets through of them."""

    gate: Annotated[Linear, at("inp_gate")]
    proj: Linear
    norm: Annotated[RmsNorm, at("post_norm")]

    def __call__(self, x: Array, own: Array, eps: float) -> Array:
        """x [rows, width], the layer's embeddings [rows, narrow] -> [rows, width]."""
        return x + self.norm(self.proj(x.ops.glu(self.gate(x), own, "gelu")), eps)


class LayerEmbeddings(Module):
    """The embeddings of all layers: what the table has for a row's id, and what is made of its embedding."""

    table: Annotated[StoredEmbedding, at("per_layer_token_embd")]
    proj: Annotated[Linear, at("per_layer_model_proj")]
    norm: Annotated[RmsNorm, at("per_layer_proj_norm")]
    gates: list[LayerGate]

    @classmethod
    def load(cls, source: Reader, *, ids: int, width: int, narrow: int, layers: int) -> Self:
        """`narrow` values a layer. Raises ModelError, naming the tensor, where something is of another size."""
        whole = cls.read(source)
        whole.gates = [LayerGate.read(source, f"blk.{i}") for i in range(layers)]
        if whole.table.weight.shape != (ids, narrow * layers):
            shape = whole.table.weight.shape
            raise ModelError(f"per_layer_token_embd.weight is {shape}; {(ids, narrow * layers)} is needed")
        whole.proj.check(width, narrow * layers)
        whole.norm.check(narrow)
        for gate in whole.gates:
            gate.gate.check(width, narrow)
            gate.proj.check(narrow, width)
            gate.norm.check(width)
        return whole

    def __call__(self, ids: Array, x: Array, eps: float) -> Array:
        """ids [rows], their embeddings x [rows, width] -> [rows, layers * narrow]."""
        narrow, layers = self.norm.weight.width, len(self.gates)
        # The norm of x / sqrt(width) is that of x with an epsilon so much larger.
        made = self.norm(self.proj(x).reshape(layers, narrow), eps * x.width).reshape(layers * narrow)
        return math.sqrt(0.5) * (made + math.sqrt(narrow) * self.table(ids))

    def give(self, x: Array, own: Array, layer: int, eps: float) -> Array:
        """x [rows, width] with the layer's part of `own`, as it was made for these rows."""
        narrow = self.norm.weight.width
        return self.gates[layer](x, own[:, layer * narrow : (layer + 1) * narrow], eps)
