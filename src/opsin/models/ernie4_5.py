"""ERNIE 4.5: the common decoder, in whose checkpoints neighbouring pairs turn as they do in files.

GGUF: general.architecture = "ernie4_5". Oracle: transformers' Ernie4_5ForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.gguf.text_rules import pre_norm_rules
from opsin.nn.decoder import PreNormDecoder

DECODERS = {"ernie4_5": partial(PreNormDecoder.load, prefix="ernie4_5", pairing="neighbours")}
RULES = (
    replace(
        pre_norm_rules("ernie4_5", ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"), ("ernie4_5",)),
        defaults={
            "vocab_size": 103424, "max_position_embeddings": 131072, "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        },
    ),
)  # fmt: skip
