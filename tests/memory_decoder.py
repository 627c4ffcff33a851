"""A decoder for tests that attends to a memory besides its own rows: a second KV group, filled once.

Every layer: self-attention with rotary positions, attention to the memory without, a gated feed-forward part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from opsin.nn.attention import Heads, SelfAttention, attend
from opsin.nn.batch import Batch, Group, GroupShape, Memory, StateShape
from opsin.nn.ffn import GatedFfn
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, Linear, RmsNorm
from opsin.ops import Array, Ops, Pages, Raw, Weight

WIDTH, HEADS, KV, HEAD, FFN, LAYERS, VOCABULARY, EPS = 32, 4, 2, 16, 48, 3, 50, 1e-4


class MemoryAttention(Module):
    """Attention to a memory: keys and values come from elsewhere, once."""

    cross_attn_q: Linear
    cross_attn_k: Linear
    cross_attn_v: Linear
    cross_attn_output: Linear

    def fill(self, memory: Array, group: Group, layer: int) -> None:
        """Keys and values of memory rows [rows, width] into the group's slots."""
        assert group.slots is not None
        k, v = (part(memory).reshape(KV, HEAD) for part in (self.cross_attn_k, self.cross_attn_v))
        memory.ops.store(group.pages, layer, k, v, group.slots)

    def __call__(self, x: Array, batch: Batch, kept: Memory, layer: int, residual: Array) -> Array:
        q = self.cross_attn_q(x).reshape(HEADS, HEAD)
        seen = attend(q, batch, kept, layer=layer, heads=SHAPE, name=f"blk.{layer}.memory")
        return self.cross_attn_output(batch.tap(f"blk.{layer}.seen", seen).reshape(HEADS * HEAD), residual)


class Block(Module):
    attn_norm: RmsNorm
    attn: Annotated[SelfAttention, at("")]
    memory_norm: RmsNorm
    memory: Annotated[MemoryAttention, at("")]
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]


class Weights(Module):
    token_embd: Embedding
    blk: list[Block]
    output_norm: RmsNorm


SHAPE = Heads(HEADS, KV, HEAD, HEAD**-0.5)
FREQUENCIES = (10000.0 ** (-np.arange(0, HEAD, 2) / HEAD)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class MemoryDecoder:
    weights: Weights
    frequencies: Array
    vocabulary: int = VOCABULARY
    ids: int = VOCABULARY
    context: int = 1024
    width: int = WIDTH
    media_width: int = WIDTH
    axes: int = 1
    segments: int = 0
    guesses: bool = False

    @classmethod
    def load(cls, source: Reader) -> MemoryDecoder:
        return cls(Weights.read(source), source.ops.constant(FREQUENCIES))

    @property
    def groups(self) -> dict[str, GroupShape]:
        shape = GroupShape(LAYERS, KV, HEAD)
        return {"self": shape, "memory": shape}

    @property
    def states(self) -> dict[str, StateShape]:
        return {}

    def fill(self, memory: Array, group: Group) -> None:
        for layer, block in enumerate(self.weights.blk):
            block.memory.fill(memory, group, layer)

    def remember(self, memory: Array, pages: Pages, slots: Array) -> None:
        """As the engine asks for it."""
        self.fill(memory, Group(pages, None, slots))

    def forward(self, batch: Batch) -> Array:
        return self.weights.token_embd.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Array:
        w = self.weights
        x = w.token_embd(batch.ids)
        table = x.ops.rope_table(batch.positions, self.frequencies)
        for i, block in enumerate(w.blk):
            x = block.attn(
                block.attn_norm(x, EPS), batch, layer=i, heads=SHAPE, rope=table, pairing="neighbours", eps=EPS,
                name=f"blk.{i}.attn", residual=x,
            )  # fmt: skip
            x = self._look(block, x, batch, i)
            x = block.ffn(block.ffn_norm(x, EPS), "silu", residual=x)
        return w.output_norm(x.ops.take(x, batch.outputs), EPS)

    def _look(self, block: Block, x: Array, batch: Batch, layer: int) -> Array:
        """Rows that remember something attend to it; the others stay as they are."""
        kept = batch.memory
        if kept is None:
            return x
        rows = x.ops.take(x, kept.rows)
        return x.ops.put(x, block.memory(block.memory_norm(rows, EPS), batch, kept, layer, rows), kept.places)


class Made:
    """Tensors from a dictionary."""

    def __init__(self, ops: Ops, tensors: dict[str, np.ndarray]) -> None:
        self.ops, self.tensors = ops, tensors

    def has(self, name: str) -> bool:
        return name in self.tensors

    def below(self, path: str) -> bool:
        return any(name.startswith(path + ".") for name in self.tensors)

    def weight(self, name: str) -> Weight:
        value = self.tensors[name]

        def read(first: int, last: int, into: np.ndarray) -> None:
            into[...] = value[first:last].reshape(-1).view(np.uint8)

        return self.ops.pack(Raw(name, 0, value.shape, read))

    def values(self, name: str) -> np.ndarray:
        return self.tensors[name]


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights; queries and keys are scaled for peaked attention."""
    random = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> np.ndarray:
        return (random.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(np.float32)

    def vector() -> np.ndarray:
        return (1 + 0.3 * random.standard_normal(WIDTH)).astype(np.float32)

    made = {"token_embd.weight": matrix(VOCABULARY, WIDTH, WIDTH**0.5), "output_norm.weight": vector()}
    for layer in range(LAYERS):
        block = {"attn_norm.weight": vector(), "memory_norm.weight": vector(), "ffn_norm.weight": vector()}
        for prefix in ("attn", "cross_attn"):
            block |= {
                f"{prefix}_q.weight": matrix(HEADS * HEAD, WIDTH, 1.7),
                f"{prefix}_k.weight": matrix(KV * HEAD, WIDTH, 1.7),
                f"{prefix}_v.weight": matrix(KV * HEAD, WIDTH),
                f"{prefix}_output.weight": matrix(WIDTH, HEADS * HEAD),
            }
        block |= {"ffn_gate.weight": matrix(FFN, WIDTH), "ffn_up.weight": matrix(FFN, WIDTH)}
        block["ffn_down.weight"] = matrix(WIDTH, FFN)
        made |= {f"blk.{layer}.{name}": value for name, value in block.items()}
    return made


def formula(
    t: dict[str, np.ndarray], ids: list[int], memory: np.ndarray, since: int = 0, seen_by: np.ndarray | None = None
) -> np.ndarray:
    """Logits [rows, vocabulary] of one sequence in plain float64, without pages or batches.

    Rows before `since` remember nothing; or `seen_by` [rows, rows of memory] says which row remembers what.
    """
    if seen_by is None:
        seen_by = np.repeat(np.arange(len(ids))[:, None] >= since, len(memory), axis=1)
    t = {name: value.astype(np.float64) for name, value in t.items()}
    rows = len(ids)
    angles = np.arange(rows)[:, None] * FREQUENCIES.astype(np.float64)
    turn = np.exp(1j * angles)[:, None]  # [rows, 1, pairs]
    causal = np.where(np.tri(rows, dtype=bool), 0, -np.inf)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * t[name]

    def rotated(x: np.ndarray) -> np.ndarray:
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if not len(k):
            return np.zeros((len(q), HEADS * HEAD))
        out = []
        for head in range(HEADS):
            scores = q[:, head] @ k[:, head // (HEADS // KV)].T * HEAD**-0.5 + mask
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out.append(weights / weights.sum(-1, keepdims=True) @ v[:, head // (HEADS // KV)])
        return np.stack(out, 1).reshape(len(q), -1)

    x = t["token_embd.weight"][ids]
    for layer in range(LAYERS):

        def linear(y: np.ndarray, name: str, layer: int = layer) -> np.ndarray:
            return y @ t[f"blk.{layer}.{name}.weight"].T

        def split(y: np.ndarray) -> np.ndarray:
            return y.reshape(len(y), y.shape[1] // HEAD, HEAD)

        y = norm(x, f"blk.{layer}.attn_norm.weight")
        q, k, v = (split(linear(y, f"attn_{part}")) for part in "qkv")
        x = x + linear(attention(rotated(q), rotated(k), v, causal), "attn_output")
        y = norm(x, f"blk.{layer}.memory_norm.weight")
        q = split(linear(y, "cross_attn_q"))
        k, v = (split(linear(memory.astype(np.float64), f"cross_attn_{part}")) for part in "kv")
        nothing = ~seen_by.any(axis=1)
        seen = attention(q, k, v, np.where(seen_by | nothing[:, None], 0, -np.inf))
        seen[nothing] = 0
        x = x + linear(seen, "cross_attn_output")
        y = norm(x, f"blk.{layer}.ffn_norm.weight")
        gate = linear(y, "ffn_gate")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, "ffn_up"), "ffn_down")
    return norm(x, "output_norm.weight") @ t["token_embd.weight"].T
