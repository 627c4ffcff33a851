"""Gemma 2: norms before and after each part, a window for every other layer, bounds of scores and of logits.

GGUF: general.architecture = "gemma2"; norms hold their "+1". Oracle: transformers' Gemma2ForCausalLM.
"""

from __future__ import annotations

from dataclasses import replace

from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, plus_one
from opsin.gguf.text_rules import KEYS, SANDWICH, tensors
from opsin.nn.attention import heads_of
from opsin.nn.keys import positive_int
from opsin.nn.module import Reader
from opsin.nn.rope import rope_of
from opsin.nn.sandwich import Kind, SandwichDecoder, SandwichWeights, cap_of, local_layers

PERIOD, WINDOW = 2, 4096  # where the file does not say
LARGEST = 46  # layers of the 27B model, whose scores are scaled by width / heads instead of the width of a head


def load(file: File, source: Reader) -> SandwichDecoder:
    weights = SandwichWeights.read(source)
    weights.check(file, "gemma2", weights.blk)
    heads, layers = heads_of(file, "gemma2"), len(weights.blk)
    if layers == LARGEST and "gemma2.attention.scale" not in file.metadata:
        heads = replace(heads, scale=(weights.width / heads.query) ** -0.5)
    heads = replace(heads, softcap=cap_of(file, "gemma2.attn_logit_softcapping", 50.0))
    local = local_layers(file, "gemma2", layers, period=PERIOD, window=WINDOW)
    rope = rope_of(file, "gemma2", heads.width)
    whole = near = Kind("self", 0, source.ops.constant(rope.frequencies), rope.scale)
    if any(local):
        near = replace(whole, group="window", window=positive_int(file, "gemma2.attention.sliding_window", WINDOW))
    decoder = SandwichDecoder.of(file, "gemma2", weights, heads, whole=whole, near=near, local=local)
    return replace(decoder, cap=cap_of(file, "gemma2.final_logit_softcapping", 30.0))


def _cap(name: str) -> Key:
    """A bound; 0 where config.json says that there is none, for a file without it has the usual one."""
    return Key(f"{{arch}}.{name}", lambda settings: settings.get(name, "float", 0.0), "float")


def _scale(settings: Settings) -> float | None:
    """Of scores, where it is not that of the heads' width."""
    scalar = settings.get("query_pre_attn_scalar", "float")
    assert isinstance(scalar, float)
    return scalar**-0.5 if scalar != settings.number("head_dim") else None


def _layers(settings: Settings) -> list[str]:
    return [
        f"{'full' if (i + 1) % PERIOD == 0 else 'sliding'}_attention"
        for i in range(settings.number("num_hidden_layers"))
    ]


DECODERS = {"gemma2": load}
RULES = (
    Rules(
        part="text",
        architecture="gemma2",
        classes=("Gemma2ForCausalLM",),
        types=("gemma2",),
        assumed={
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": _layers,
            "use_bidirectional_attention": False,
        },
        keys=(
            *KEYS,
            Key("{arch}.context_length", "max_position_embeddings"),
            Key("{arch}.attention.scale", _scale, "float", None),
            Key("{arch}.attention.sliding_window", "sliding_window"),
            _cap("attn_logit_softcapping"),
            _cap("final_logit_softcapping"),
        ),
        tensors=(*tensors(norm=plus_one), *SANDWICH),
        defaults={
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
)
