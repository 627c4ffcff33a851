"""Qwen2-VL and Qwen2.5-VL: the text decoder of Qwen 2 with positions of three axes, time, row and column (M-RoPE).

GGUF: general.architecture = "qwen2vl". Oracle: transformers' Qwen2VLForConditionalGeneration.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings
from opsin.gguf.text_rules import KEYS, PRE_NORM, tensors
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Qwen2Vl:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "qwen2vl", pairing="halves", planar=True)


def _sections(settings: Settings) -> list[int]:
    """Pairs of time, rows and columns, and none of a fourth axis."""
    found = settings.get("rope_parameters.mrope_section|rope_scaling.mrope_section", "ints", [16, 24, 24])
    assert isinstance(found, list)
    return [*found, *[0] * (4 - len(found))]


DECODERS = {"qwen2vl": Qwen2Vl}
RULES = (
    Rules(
        part="text",
        architecture="qwen2vl",
        classes=("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
        types=("qwen2_vl_text", "qwen2_5_vl_text"),
        keys=(*KEYS, Key("{arch}.rope.dimension_sections", _sections, "ints")),
        tensors=(*tensors(), *PRE_NORM),
    ),
)
