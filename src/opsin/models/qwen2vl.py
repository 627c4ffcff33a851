"""Qwen2-VL and Qwen2.5-VL: the text decoder of Qwen 2 with positions of three axes, time, row and column (M-RoPE).

GGUF: general.architecture = "qwen2vl". Oracle: transformers' Qwen2VLForConditionalGeneration.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Qwen2Vl:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "qwen2vl", pairing="halves", planar=True)


DECODERS = {"qwen2vl": Qwen2Vl}
