"""SmolLM3: the common decoder, of which every fourth layer knows no positions (NoPE, Kazemnejad et al. 2023).

GGUF: general.architecture = "smollm3". Oracle: transformers' SmolLM3ForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from opsin.gguf.rules import Key, Settings, neighbours
from opsin.gguf.text_rules import HEADS, KV_HEADS, PRE_NORM, ROPE_FACTORS, SWISH, head_width, pre_norm_rules, tensors
from opsin.nn.batch import Batch
from opsin.nn.decoder import PreNormBlock, PreNormDecoder, Tables
from opsin.ops import Array

EVERY = 4  # the last of so many layers knows no positions; files do not say it


class SmolLm3(PreNormDecoder):
    def _block(self, block: PreNormBlock, x: Array, batch: Batch, layer: int, tables: Tables | None) -> Array:
        return super()._block(block, x, batch, layer, tables if (layer + 1) % EVERY else None)


def _turning(settings: Settings) -> list[int]:
    """What config.json must say of the layers, if anything: 1 for those that know positions."""
    return [int((i + 1) % EVERY != 0) for i in range(settings.number("num_hidden_layers"))]


DECODERS = {"smollm3": partial(SmolLm3.load, prefix="smollm3", pairing="neighbours")}
RULES = (
    replace(
        pre_norm_rules(
            "smollm3", ("SmolLM3ForCausalLM",), ("smollm3",), Key("{arch}.rope.dimension_count", head_width)
        ),
        tensors=(*tensors(q=neighbours(HEADS), k=neighbours(KV_HEADS)), *PRE_NORM),
        made=(ROPE_FACTORS,),
        assumed={
            **SWISH, "use_sliding_window": False, "no_rope_layers": _turning,
            "no_rope_layer_interval": lambda s: None if s.find("no_rope_layers") else EVERY,
        },
        defaults={
            "vocab_size": 128256, "max_position_embeddings": 32768, "hidden_size": 2048, "intermediate_size": 11008,
            "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4, "rope_theta": 2000000.0,
        },
    ),
)  # fmt: skip
