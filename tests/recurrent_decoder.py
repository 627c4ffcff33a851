"""A decoder for tests with recurrent state beside pages: layers of the gated delta rule, and one that attends.

Every layer: one of the two, and a gated feed-forward part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from memory_decoder import EPS, FFN, FREQUENCIES, HEAD, HEADS, KV, SHAPE, VOCABULARY, WIDTH

from opsin.nn.attention import SelfAttention
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.ffn import GatedFfn
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, Linear, RmsNorm
from opsin.ops import Array

STEPS, KEYS, VALUES, PART = 4, 2, 4, 8  # of the convolution; heads of keys and of values, and their width
RECURRENT = (0, 2)  # layers; layer 1 attends
CHANNELS = (2 * KEYS + VALUES) * PART


class DeltaBlock(Module):
    attn_norm: RmsNorm
    mixed: Linear
    beta: Linear
    rate: Linear
    out: Linear
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]


class FullBlock(Module):
    attn_norm: RmsNorm
    attn: Annotated[SelfAttention, at("")]
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]


class Weights(Module):
    token_embd: Embedding
    output_norm: RmsNorm


@dataclass(frozen=True, eq=False)
class RecurrentDecoder:
    weights: Weights
    blocks: tuple[DeltaBlock | FullBlock, ...]
    taps: tuple[Array, ...]
    frequencies: Array
    vocabulary: int = VOCABULARY
    ids: int = VOCABULARY
    context: int = 8192
    width: int = WIDTH
    media_width: int = WIDTH
    axes: int = 1
    segments: int = 0
    guesses: bool = False

    @classmethod
    def load(cls, source: Reader) -> RecurrentDecoder:
        blocks = tuple((DeltaBlock if i in RECURRENT else FullBlock).read(source, f"blk.{i}") for i in range(3))
        constant = source.ops.constant
        taps = tuple(constant(source.values(f"blk.{i}.taps.weight")) for i in RECURRENT)
        return cls(Weights.read(source), blocks, taps, constant(FREQUENCIES))

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {"self": GroupShape(1, KV, HEAD)}

    @property
    def states(self) -> dict[str, StateShape]:
        layers = len(RECURRENT)
        return {"conv": StateShape(layers, (STEPS - 1, CHANNELS)), "delta": StateShape(layers, (VALUES, PART, PART))}

    def forward(self, batch: Batch) -> Array:
        return self.weights.token_embd.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Array:
        w = self.weights
        x = batch.overlay(w.token_embd(batch.ids))
        table = x.ops.rope_table(batch.positions, self.frequencies)
        for i, block in enumerate(self.blocks):
            normed = block.attn_norm(x, EPS)
            if isinstance(block, FullBlock):
                x = block.attn(
                    normed, batch, layer=0, heads=SHAPE, rope=table, pairing="neighbours", eps=EPS,
                    name=f"blk.{i}.attn", residual=x,
                )  # fmt: skip
            else:
                x = self._remember(block, normed, batch, RECURRENT.index(i), x)
            x = batch.tap(f"blk.{i}.out", block.ffn(block.ffn_norm(x, EPS), "silu", residual=x))
        return w.output_norm(x.ops.take(x, batch.outputs), EPS)

    def _remember(self, block: DeltaBlock, x: Array, batch: Batch, layer: int, residual: Array) -> Array:
        ops, runs, keys = x.ops, batch.runs, KEYS * PART
        assert runs is not None
        mixed = ops.conv_state(block.mixed(x), self.taps[layer], batch.states["conv"], layer, runs, "silu")
        parts = (mixed[:, :keys], mixed[:, keys : 2 * keys], mixed[:, 2 * keys :])
        decay, beta = (ops.activate(part(x), "sigmoid") for part in (block.rate, block.beta))
        seen = ops.delta(*parts, decay, beta, batch.states["delta"], layer, runs, scale=PART**-0.5, eps=1e-6)
        return block.out(seen, residual)


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights; what layers add outweighs the embeddings, so that answers do not repeat themselves."""
    random = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> np.ndarray:
        return (random.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(np.float32)

    def vector() -> np.ndarray:
        return (1 + 0.3 * random.standard_normal(WIDTH)).astype(np.float32)

    made = {"token_embd.weight": matrix(VOCABULARY, WIDTH), "output_norm.weight": vector()}
    for layer in range(3):
        block = {"attn_norm.weight": vector(), "ffn_norm.weight": vector()}
        if layer in RECURRENT:
            block |= {
                "mixed.weight": matrix(CHANNELS, WIDTH), "taps.weight": matrix(STEPS, CHANNELS, CHANNELS**0.5),
                "beta.weight": matrix(VALUES, WIDTH), "rate.weight": matrix(VALUES, WIDTH, 3.0),
                "out.weight": matrix(WIDTH, VALUES * PART, 2.0),
            }  # fmt: skip
        else:
            block |= {
                "attn_q.weight": matrix(HEADS * HEAD, WIDTH, 1.7), "attn_k.weight": matrix(KV * HEAD, WIDTH, 1.7),
                "attn_v.weight": matrix(KV * HEAD, WIDTH), "attn_output.weight": matrix(WIDTH, HEADS * HEAD),
            }  # fmt: skip
        block |= {"ffn_gate.weight": matrix(FFN, WIDTH), "ffn_up.weight": matrix(FFN, WIDTH)}
        block["ffn_down.weight"] = matrix(WIDTH, FFN)
        made |= {f"blk.{layer}.{name}": value for name, value in block.items()}
    return made
