"""Qwen 3: a norm before each part, norms of the heads of q and k, rotary positions of halves, SwiGLU.

GGUF: general.architecture = "qwen3". Oracle: transformers' Qwen3ForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Rules
from opsin.gguf.text_rules import KEYS, PRE_NORM, SWISH, tensors
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Qwen3:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "qwen3", pairing="halves")


DECODERS = {"qwen3": Qwen3}
RULES = (
    Rules(
        part="text",
        architecture="qwen3",
        classes=("Qwen3ForCausalLM",),
        types=("qwen3",),
        assumed=SWISH,
        keys=KEYS,
        tensors=(*tensors(), *PRE_NORM),
    ),
)
