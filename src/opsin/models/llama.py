"""Llama, SmolLM2, Mistral and others of that shape: RMS norms before parts, SwiGLU.

Rotary positions turn neighbouring pairs, and heads are grouped. Mixtral has experts (Jiang et al. 2024).

GGUF: general.architecture = "llama". Oracle: transformers' LlamaForCausalLM and MixtralForCausalLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from opsin.gguf.rules import Key, Rules, neighbours
from opsin.gguf.text_rules import (
    EXPERT_KEYS,
    HEADS,
    KV_HEADS,
    PRE_NORM,
    ROPE_FACTORS,
    expert_tensors,
    head_width,
    pre_norm_rules,
    tensors,
)
from opsin.nn.decoder import PreNormDecoder

DECODERS = {"llama": partial(PreNormDecoder.load, prefix="llama", pairing="neighbours")}
_DEFAULTS = {
    "vocab_size": 32000, "max_position_embeddings": 2048, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
_LATER = {
    "max_position_embeddings": 131072, "intermediate_size": 14336, "num_key_value_heads": 8, "sliding_window": 4096,
}  # fmt: skip


def _rules(name: str, kind: str, defaults: Mapping[str, object]) -> Rules:
    return replace(
        pre_norm_rules("llama", (name,), (kind,), Key("llama.rope.dimension_count", head_width)),
        tensors=(*tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)), *PRE_NORM),
        made=(ROPE_FACTORS,),
        defaults=defaults,
    )


def _mixture() -> Rules:
    """Files of it are those of the plain model with experts."""
    found = _rules("MixtralForCausalLM", "mixtral", _DEFAULTS | _LATER)
    experts = expert_tensors("layers.{n}.block_sparse_moe", gate="w1", up="w3", down="w2")
    return replace(found, keys=(*found.keys, *EXPERT_KEYS), tensors=(*found.tensors, *experts))


RULES = (
    _rules("LlamaForCausalLM", "llama", _DEFAULTS),
    _rules("MistralForCausalLM", "mistral", _DEFAULTS | _LATER),
    _mixture(),
)
