"""Llama, SmolLM2, Mistral and others of that shape: RMS norms before parts, SwiGLU.

Rotary positions turn neighbouring pairs, and heads are grouped.

GGUF: general.architecture = "llama". Oracle: transformers' LlamaForCausalLM.
"""

from __future__ import annotations

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, neighbours
from opsin.gguf.text_rules import HEADS, KEYS, KV_HEADS, PRE_NORM, ROPE_FACTORS, SWISH, head_width, tensors
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.module import Reader


class Llama:
    @staticmethod
    def load(file: File, source: Reader) -> PreNormDecoder:
        return PreNormDecoder.read(file, source, "llama", pairing="neighbours")


DECODERS = {"llama": Llama}
_KEYS = (*KEYS, Key("llama.rope.dimension_count", head_width))
_TENSORS = (*tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)), *PRE_NORM)
_DEFAULTS = {
    "vocab_size": 32000, "max_position_embeddings": 2048, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
RULES = (
    Rules(
        part="text",
        architecture="llama",
        classes=("LlamaForCausalLM",),
        types=("llama",),
        assumed=SWISH,
        keys=_KEYS,
        tensors=_TENSORS,
        made=(ROPE_FACTORS,),
        defaults=_DEFAULTS,
    ),
    Rules(
        part="text",
        architecture="llama",
        classes=("MistralForCausalLM",),
        types=("mistral",),
        assumed=SWISH,
        keys=_KEYS,
        tensors=_TENSORS,
        made=(ROPE_FACTORS,),
        defaults=_DEFAULTS
        | {
            "max_position_embeddings": 131072,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    ),
)
