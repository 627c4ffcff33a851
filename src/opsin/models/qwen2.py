"""Qwen 2 and 2.5: a norm before each part, biases of q, k and v, rotary positions of halves, SwiGLU.

GGUF: general.architecture = "qwen2". Oracle: transformers' Qwen2ForCausalLM.
"""

from __future__ import annotations

from functools import partial

from opsin.gguf.text_rules import pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {"qwen2": partial(PreNormDecoder.load, prefix="qwen2", pairing="halves")}
RULES = (pre_norm_rules("qwen2", ("Qwen2ForCausalLM",), ("qwen2",)),)
