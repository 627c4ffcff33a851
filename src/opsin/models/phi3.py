"""Phi 3, 3.5 and 4: the common decoder, whose matrices of q, k and v, and of gate and up, are one each.

Longer texts have a rope of their own (LongRoPE), of Phi 4 only a part of each head turns, of some all layers see a
window.

GGUF: general.architecture = "phi3". Oracle: transformers' Phi3ForCausalLM, which takes the rope of long texts as soon
as a text is long; here, as in llama.cpp, it is taken where texts may become so, for keys are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import ComputedTensor, Key, Rules, Settings, Tensor
from opsin.gguf.text_rules import PRE_NORM, ROPE_BASE, SIZE_KEYS, rope, rope_number, tensors, turned
from opsin.nn.attention import heads_of
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.decoder import PreNormDecoder, Tables
from opsin.nn.keys import positive_int
from opsin.nn.module import Reader
from opsin.nn.rope import long_rope_of
from opsin.ops import Array

NAME = "phi3"


@dataclass(frozen=True, eq=False)
class Phi3(PreNormDecoder):
    """`long`: frequencies for texts of more positions than `original`."""

    window: int = 0
    original: int = 0
    long: Array | None = None

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {name: replace(shape, window=self.window) for name, shape in super().groups.items()}

    @classmethod
    def of(cls, file: File, source: Reader) -> Phi3:
        """The decoder of a file."""
        width, key, ropes = heads_of(file, NAME).width, f"{NAME}.attention.sliding_window", None
        factors = [f"rope_factors_{name}.weight" for name in ("short", "long")]
        if any(map(source.has, factors)):
            ropes = long_rope_of(file, NAME, width, *map(source.values, factors))
        decoder = cls.load(file, source, NAME, pairing="halves", rope=None if ropes is None else ropes.short)
        window = positive_int(file, key) if file.get_int(key, 0) else 0
        decoder = replace(decoder, window=window if window < decoder.context else 0)
        if ropes is None:
            return decoder
        return replace(decoder, original=ropes.original, long=source.ops.constant(ropes.long.frequencies))

    def _tables(self, batch: Batch) -> Tables:
        if self.long is None or (batch.context or self.context) <= self.original:
            return super()._tables(batch)
        table = batch.positions.ops.rope_table(batch.positions, self.long, self.rope.scale)
        return table, table


def _original(settings: Settings) -> int:
    """Positions of texts that are not long yet; transformers' class looks at the root alone."""
    return settings.number("original_max_position_embeddings")


def _is_long(settings: Settings) -> bool:
    """Whether the rope is LongRoPE's; "su" and "yarn" are names of it in old checkpoints of this class.

    Raises ModelError for any other that is no plain one.
    """
    kind = rope(settings).get("rope_type", rope(settings).get("type", "default"))
    if kind not in ("default", "longrope", "su", "yarn"):
        raise ModelError(f"{settings.where}: the rope is scaled by {kind!r}", hint="it cannot be converted yet")
    return kind != "default"


def _strength(settings: Settings) -> float | None:
    """Of cosines and sines."""
    if not _is_long(settings):
        return None
    if rope(settings).get("attention_factor") is not None:
        return rope_number(settings, "attention_factor")
    original = _original(settings)
    stretched = rope_number(settings, "factor", settings.number("max_position_embeddings") / original)
    return math.sqrt(1 + math.log(max(1.0, stretched)) / math.log(original))


def _factors(name: str) -> ComputedTensor:
    def make(settings: Settings) -> Floats | None:
        if not _is_long(settings):
            return None
        return np.array(
            settings.check(f"rope_scaling.{name}_factor", rope(settings).get(f"{name}_factor"), "floats"), np.float32
        )

    return ComputedTensor(f"rope_factors_{name}.weight", make)


DECODERS = {"phi3": Phi3.of}
RULES = (
    Rules(
        part="text",
        architecture=NAME,
        classes=("Phi3ForCausalLM",),
        types=("phi3",),
        assumed={"hidden_act": "silu"},
        keys=(
            *SIZE_KEYS,
            Key("{arch}.context_length", "max_position_embeddings"),
            ROPE_BASE,
            Key("{arch}.rope.dimension_count", turned),
            Key("{arch}.rope.scaling.original_context_length", _original),
            Key("{arch}.rope.scaling.attn_factor", _strength, "float", None),
            Key("{arch}.attention.sliding_window", "sliding_window", "int", 0),
        ),
        tensors=(
            *tensors(),
            *PRE_NORM,
            Tensor("layers.{n}.self_attn.qkv_proj", "blk.{n}.attn_qkv"),
            Tensor("layers.{n}.mlp.gate_up_proj", "blk.{n}.ffn_up"),
        ),
        made=(_factors("short"), _factors("long")),
        defaults={
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "rms_norm_eps": 1e-5,
            "original_max_position_embeddings": 4096,
        },
    ),
)
