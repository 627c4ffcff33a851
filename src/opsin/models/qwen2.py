"""Qwen 2 and 2.5: a norm before each part, biases of q, k and v, rotary positions of halves, SwiGLU.

GGUF: general.architecture = "qwen2". Oracle: transformers' Qwen2ForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Rules
from opsin.gguf.text_rules import KEYS, PRE_NORM, SWISH, tensors
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Qwen2:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "qwen2", pairing="halves")


DECODERS = {"qwen2": Qwen2}
RULES = (
    Rules(
        part="text",
        architecture="qwen2",
        classes=("Qwen2ForCausalLM",),
        types=("qwen2",),
        assumed=SWISH,
        keys=KEYS,
        tensors=(*tensors(), *PRE_NORM),
    ),
)
