"""Mistral Small 3 and Ministral 3: the common decoder. Ministral's rope is stretched by YaRN, its queries grow.

A query's growth follows its position: see `nn.rope.temperature_of`.

GGUF: general.architecture = "mistral3". Oracle: transformers' Ministral3ForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.gguf.rules import Key, Settings, neighbours
from opsin.gguf.text_rules import HEADS, KV_HEADS, PRE_NORM, head_width, pre_norm_rules, rope, tensors
from opsin.nn.decoder import PreNormDecoder

NAME = "mistral3"
DECODERS = {"mistral3": partial(PreNormDecoder.load, prefix=NAME, pairing="neighbours")}
_DEFAULTS = {
    "vocab_size": 131072, "max_position_embeddings": 262144, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 34, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
        "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
    },
}  # fmt: skip


def _of_rope(name: str, settings: Settings) -> object:
    return rope(settings).get(name)


RULES = (
    replace(
        pre_norm_rules(
            NAME,
            ("Ministral3ForCausalLM",),
            ("ministral3",),
            Key("{arch}.rope.dimension_count", head_width),
            Key("{arch}.attention.temperature_scale", partial(_of_rope, "llama_4_scaling_beta"), "float", None),
            Key(  # counts for the temperature without YaRN, too
                "{arch}.rope.scaling.original_context_length",
                partial(_of_rope, "original_max_position_embeddings"),
                "int",
                None,
            ),
        ),
        tensors=(*tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)), *PRE_NORM),
        defaults=_DEFAULTS,
    ),
)
