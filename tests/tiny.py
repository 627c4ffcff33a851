"""Tiny random llama files that load as the real ones do: three layers, grouped heads, heads wider than width / heads.

Queries and keys are scaled so that attention is peaked: a wrong mask, position or head then shows in the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.gguf import NewTensor, write
from opsin.quants import BY_NAME

Floats = NDArray[np.float32]
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """What `tiny_llama` writes. `types` gives a format to tensors whose name contains the key; others are F32."""

    layers: int = 3
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    ffn: int = 96
    context: int = 1024
    eps: float = 1e-3
    base: float = 10000.0
    untied: bool = False
    biases: bool = False
    fused: bool = False
    peak: float = 3.0
    seed: int = 0
    types: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    factors: tuple[float, ...] = ()
    specials: tuple[str, ...] = ()  # besides SPECIALS

    @property
    def vocabulary(self) -> int:
        return len(tokens(self.specials)[0])


MIXED = {"attn_q.": "Q4_0", "attn_k.": "Q8_0", "attn_v.": "F16", "attn_output.": "Q4_0", "ffn_gate.": "Q4_0",
         "ffn_up.": "Q8_0", "ffn_down.": "Q4_0", "token_embd.": "Q8_0"}  # fmt: skip


def tiny_llama(path: Path, **shape: object) -> Path:
    """Write a tiny random llama; keywords are those of `Shape`."""
    s = Shape(**shape)  # type: ignore[arg-type]
    return write_llama(path, s, weights(s))


def write_llama(path: Path, s: Shape, values: Mapping[str, Floats]) -> Path:
    """Write these weights, as `s` says."""
    write(path, metadata(s), [_tensor(name, value, s.types) for name, value in values.items()])
    return path


def metadata(s: Shape) -> dict[str, object]:
    texts, kinds, merges = tokens(s.specials)
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": s.layers,
        "llama.context_length": s.context,
        "llama.embedding_length": s.width,
        "llama.feed_forward_length": s.ffn,
        "llama.attention.head_count": s.heads,
        "llama.attention.head_count_kv": s.kv_heads,
        "llama.attention.key_length": s.head,
        "llama.attention.value_length": s.head,
        "llama.attention.layer_norm_rms_epsilon": s.eps,
        "llama.rope.dimension_count": s.head,
        "llama.rope.freq_base": s.base,
        "llama.vocab_size": len(texts),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": texts.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": texts.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
        **s.metadata,
    }


def tokens(more: Sequence[str] = ()) -> tuple[list[str], list[int], list[str]]:
    """Texts, kinds and merges: the bytes as GPT-2 spells them, a few merges, special tokens."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    spelt = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    merges = ["t h", "th e", "i n", "e r", f"{spelt[32]} the", f"{spelt[32]} a"]
    normal = [spelt[byte] for byte in range(256)] + [merge.replace(" ", "") for merge in merges]
    specials = [*SPECIALS, *more]
    return [*normal, *specials], [1] * len(normal) + [3] * len(specials), merges


def weights(s: Shape) -> dict[str, Floats]:
    """Random tensors under GGUF's names, [outputs, inputs]."""
    random = np.random.default_rng(s.seed)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> Floats:
        return (random.standard_normal((outputs, inputs)) * gain * inputs**-0.5).astype(np.float32)

    def vector(size: int, middle: float = 1.0) -> Floats:
        return (middle + 0.3 * random.standard_normal(size)).astype(np.float32)

    made = {"token_embd.weight": matrix(s.vocabulary, s.width, s.width**0.5), "output_norm.weight": vector(s.width)}
    if s.untied:
        made["output.weight"] = matrix(s.vocabulary, s.width)
    if s.factors:
        made["rope_freqs.weight"] = np.asarray(s.factors, np.float32)
    for layer in range(s.layers):
        block = {
            "attn_norm.weight": vector(s.width),
            "attn_q.weight": matrix(s.heads * s.head, s.width, s.peak**0.5),
            "attn_k.weight": matrix(s.kv_heads * s.head, s.width, s.peak**0.5),
            "attn_v.weight": matrix(s.kv_heads * s.head, s.width),
            "attn_output.weight": matrix(s.width, s.heads * s.head),
            "ffn_norm.weight": vector(s.width),
            "ffn_gate.weight": matrix(s.ffn, s.width),
            "ffn_up.weight": matrix(s.ffn, s.width),
            "ffn_down.weight": matrix(s.width, s.ffn),
        }
        if s.biases:
            linear = [name for name in block if "norm" not in name]
            block |= {name.replace("weight", "bias"): vector(len(block[name]), 0.0) for name in linear}
        if s.fused:
            for part in ("weight", "bias") if s.biases else ("weight",):
                apart = [block.pop(f"attn_{name}.{part}") for name in "qkv"]
                block[f"attn_qkv.{part}"] = np.concatenate(apart)
        made |= {f"blk.{layer}.{name}": value for name, value in block.items()}
    return made


def _tensor(name: str, value: Floats, types: Mapping[str, str]) -> NewTensor:
    kind = BY_NAME[next((types[part] for part in types if part in name and name.endswith("weight")), "F32")]
    if kind.name == "F32":
        return NewTensor.of(name, value)
    encoded = kind.encode(value.reshape(-1, kind.elements))
    return NewTensor(name, value.shape, kind.id, np.ascontiguousarray(encoded).reshape(-1).view(np.uint8))
