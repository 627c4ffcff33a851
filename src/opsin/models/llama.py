"""Llama and its kin: RMS norm before, rotary positions of neighbouring pairs, grouped heads, SwiGLU.

GGUF: general.architecture = "llama". Oracle: transformers' LlamaForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Llama:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "llama", pairing="neighbours")


DECODERS = {"llama": Llama}
