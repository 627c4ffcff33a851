"""Qwen 3: a norm before each part, norms of the heads of q and k, rotary positions of halves, SwiGLU.

With experts, each row passes through a few, whose shares are those of a softmax over all, divided by their sum.

GGUF: general.architecture = "qwen3" or "qwen3moe". Oracle: transformers' Qwen3ForCausalLM and Qwen3MoeForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.gguf.rules import Tensor, constant
from opsin.gguf.text_rules import EXPERT_KEYS, expert_tensors, pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {
    "qwen3": partial(PreNormDecoder.load, prefix="qwen3", pairing="halves"),
    "qwen3moe": partial(PreNormDecoder.load, prefix="qwen3moe", pairing="halves"),
}
_MIXTURE = pre_norm_rules("qwen3moe", ("Qwen3MoeForCausalLM",), ("qwen3_moe",), *EXPERT_KEYS)
_TEXT = pre_norm_rules("qwen3", ("Qwen3ForCausalLM",), ("qwen3",))
RULES = (
    replace(
        _TEXT,
        classes=("Qwen3ForSequenceClassification",),
        types=(),
        keys=(*_TEXT.keys, constant("{arch}.pooling_type", 4, "int")),  # llama.cpp's number of one that ranks
        tensors=(*_TEXT.tensors, Tensor("score", "cls.output")),
    ),
    _TEXT,
    replace(_MIXTURE, tensors=(*_MIXTURE.tensors, *expert_tensors())),
)
