"""Qwen 3: a norm before each part, norms of the heads of q and k, rotary positions of halves, SwiGLU.

GGUF: general.architecture = "qwen3". Oracle: transformers' Qwen3ForCausalLM.
"""

from __future__ import annotations

from functools import partial

from opsin.gguf.text_rules import pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {"qwen3": partial(PreNormDecoder.load, prefix="qwen3", pairing="halves")}
RULES = (pre_norm_rules("qwen3", ("Qwen3ForCausalLM",), ("qwen3",)),)
