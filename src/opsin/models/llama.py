"""Llama and its kin: RMS norm before, rotary positions of neighbouring pairs, grouped heads, SwiGLU.

GGUF: general.architecture = "llama". Oracle: transformers' LlamaForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, neighbours
from opsin.gguf.text_rules import HEADS, KEYS, KV_HEADS, PRE_NORM, ROPE_FACTORS, head_width, tensors
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Llama:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "llama", pairing="neighbours")


DECODERS = {"llama": Llama}
RULES = (
    Rules(
        part="text",
        architecture="llama",
        classes=("LlamaForCausalLM", "MistralForCausalLM"),
        types=("llama", "mistral"),
        keys=(*KEYS, Key("llama.rope.dimension_count", head_width)),
        tensors=(*tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)), *PRE_NORM),
        made=(ROPE_FACTORS,),
    ),
)
