"""What checkpoints of text models have in common: their settings and tensors under the names of both sides.

See `opsin.gguf.rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from opsin.arrays import Floats
from opsin.errors import FileError, ModelError
from opsin.gguf.rules import Change, ComputedTensor, Key, Rules, Settings, Shape, Tensor, plus_one

HEADS, KV_HEADS = "num_attention_heads", "num_key_value_heads|num_attention_heads"
EXPERTS = "num_experts|num_local_experts|n_routed_experts"
_ROPES = "rope_parameters.full_attention|rope_parameters|rope_scaling"


def head_width(settings: Settings) -> int:
    """Width of a head: told, or width / heads."""
    told = settings.find("head_dim")
    return settings.number("head_dim") if told else settings.number("hidden_size") // settings.number(HEADS)


def turned(settings: Settings, share: float = 1.0) -> int:
    """Values of a head that the rope turns. `share` counts where nothing is told."""
    told = rope(settings).get("partial_rotary_factor", settings.find("partial_rotary_factor"))
    known = settings.check("partial_rotary_factor", share if told is None else told, "float")
    assert isinstance(known, float)
    return int(head_width(settings) * known)


def context(settings: Settings) -> int:
    """Positions that every layer sees: a window over all of them, which GGUF has no key for, ends it earlier."""
    positions = settings.number("max_position_embeddings")
    if settings.find("sliding_window") is None or settings.find("use_sliding_window") is False:
        return positions
    return min(positions, settings.number("sliding_window"))


def rope(settings: Settings) -> Mapping[str, object]:
    """The parameters of the rope, in whichever of its places they stand."""
    found = settings.find(_ROPES)
    return found if isinstance(found, Mapping) else {}


def rope_type(settings: Settings) -> str:
    """How the rope is scaled: "default" for not at all. Raises ModelError for a kind that GGUF cannot say.

    "dynamic" scales past the positions of training alone, where the file's context ends; not so with an "alpha".
    """
    kind = rope(settings).get("rope_type", rope(settings).get("type", "default"))
    known = ("default", "mrope", "linear", "yarn", *(() if "alpha" in rope(settings) else ("dynamic",)))
    if kind not in known and not _has_bands(settings):
        raise ModelError(f"{settings.where}: the rope is scaled by {kind!r}", hint="it cannot be converted yet")
    if kind == "yarn" and rope(settings).get("truncate") is False:
        raise ModelError(f"{settings.where}: rope_scaling.truncate is False", hint="GGUF files cannot say it")
    return "default" if kind in ("mrope", "dynamic") else str(kind)


def _has_bands(settings: Settings) -> bool:
    """Whether long and short waves are scaled apart, by divisors of frequencies that the file holds as a tensor."""
    return "low_freq_factor" in rope(settings)


def rope_number(settings: Settings, name: str, default: float | None = None) -> float:
    """A parameter of the rope. Raises FileError for another kind, or for none without a default."""
    value = settings.check(f"rope_scaling.{name}", rope(settings).get(name, default), "float")
    assert isinstance(value, float)
    return value


def _scaling(settings: Settings) -> str | None:
    return rope_type(settings) if rope_type(settings) in ("linear", "yarn") else None


def _factor(settings: Settings) -> float | None:
    return rope_number(settings, "factor") if _scaling(settings) else None


def _yarn(name: str, default: float | None = None) -> Key:
    """A key of yarn, left out where it has its default."""

    def find(settings: Settings) -> float | None:
        told = rope(settings).get(name)
        return rope_number(settings, name) if told not in (None, default) and _scaling(settings) == "yarn" else None

    return Key(f"{{arch}}.rope.scaling.yarn_{name}", find, "float", None)


def _original(settings: Settings) -> int | None:
    told = rope(settings).get("original_max_position_embeddings")
    return (
        None
        if told is None or _scaling(settings) != "yarn"
        else int(rope_number(settings, "original_max_position_embeddings"))
    )


def _attention_factor(settings: Settings) -> float | None:
    """Cosines and sines grow by 0.1 ln(factor) + 1, unless the checkpoint says otherwise; GGUF holds the quotient."""
    if _scaling(settings) != "yarn":
        return None
    usual, told = _mscale(settings), rope(settings).get("attention_factor")
    if told is not None:
        return rope_number(settings, "attention_factor") / usual
    one, other = "mscale", "mscale_all_dim"
    if not (rope(settings).get(one) and rope(settings).get(other)):
        return None
    return _mscale(settings, rope_number(settings, one)) / _mscale(settings, rope_number(settings, other)) / usual


def _mscale(settings: Settings, share: float = 1.0) -> float:
    return 0.1 * share * math.log(max(1.0, rope_number(settings, "factor"))) + 1


def _rope_factors(settings: Settings) -> Floats | None:
    """Divisors of frequencies: long waves become slower, short ones stay, with a ramp between."""
    if rope_type(settings) in ("default", "linear", "yarn"):
        return None
    factor, low, high = (rope_number(settings, name) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    old = rope_number(settings, "original_max_position_embeddings")
    width = head_width(settings)
    waves = 2 * np.pi * _base(settings) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    between = np.clip((old / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - between) / factor + between)).astype(np.float32)


def _base(settings: Settings) -> float:
    told = rope(settings).get("rope_theta", settings.find("rope_theta|rope_parameters.rope_theta"))
    value = settings.check("rope_theta", 10000.0 if told is None else told, "float")
    assert isinstance(value, float)
    return value


ROPE_FACTORS = ComputedTensor("rope_freqs.weight", _rope_factors)
ROPE_BASE = Key("{arch}.rope.freq_base", _base, "float")
ROPE_KEYS = (
    ROPE_BASE,
    Key("{arch}.rope.scaling.type", _scaling, "str", None),
    Key("{arch}.rope.scaling.factor", _factor, "float", None),
    Key("{arch}.rope.scaling.original_context_length", _original, "int", None),
    Key("{arch}.rope.scaling.attn_factor", _attention_factor, "float", None),
    _yarn("beta_fast", 32.0),
    _yarn("beta_slow", 1.0),
)  # fmt: skip
SIZE_KEYS = (
    Key("{arch}.vocab_size", "vocab_size"),
    Key("{arch}.context_length", context),
    Key("{arch}.embedding_length", "hidden_size"),
    Key("{arch}.block_count", "num_hidden_layers"),
    Key("{arch}.feed_forward_length", "intermediate_size"),
    Key("{arch}.attention.head_count", HEADS),
    Key("{arch}.attention.head_count_kv", KV_HEADS),
    Key("{arch}.attention.key_length", head_width),
    Key("{arch}.attention.value_length", head_width),
    Key("{arch}.attention.layer_norm_rms_epsilon", "rms_norm_eps", "float", 1e-6),
)
KEYS = SIZE_KEYS + ROPE_KEYS  # a family may add keys of the same names behind these: the last value counts


def tensors(*, q: Change | None = None, k: Change | None = None, norm: Change | None = None) -> tuple[Tensor, ...]:
    """Tensors of the ordinary pre-norm decoder; `q`, `k`, `norm` change the values of those."""
    layer, block = "layers.{n}", "blk.{n}"
    attention, ffn = f"{layer}.self_attn", f"{layer}.mlp"
    return (
        Tensor("embed_tokens.weight", "token_embd.weight"),
        Tensor("norm.weight", "output_norm.weight", norm),
        Tensor("lm_head.weight", "output.weight"),
        Tensor(f"{layer}.input_layernorm", f"{block}.attn_norm", norm),
        Tensor(f"{attention}.q_proj", f"{block}.attn_q", q),
        Tensor(f"{attention}.k_proj", f"{block}.attn_k", k),
        Tensor(f"{attention}.v_proj", f"{block}.attn_v"),
        Tensor(f"{attention}.o_proj", f"{block}.attn_output"),
        Tensor(f"{attention}.q_norm", f"{block}.attn_q_norm", norm),
        Tensor(f"{attention}.k_norm", f"{block}.attn_k_norm", norm),
        Tensor(f"{ffn}.gate_proj", f"{block}.ffn_gate"),
        Tensor(f"{ffn}.up_proj", f"{block}.ffn_up"),
        Tensor(f"{ffn}.down_proj", f"{block}.ffn_down"),
    )


def _as_they_are(settings: Settings) -> bool | None:
    """Whether shares are not divided by their sum, as they usually are."""
    return False if settings.get("norm_topk_prob", "bool", True) is False else None


EXPERT_KEYS = (
    Key("{arch}.expert_count", EXPERTS),
    Key("{arch}.expert_used_count", "num_experts_per_tok"),
    Key("{arch}.expert_feed_forward_length", "moe_intermediate_size|intermediate_size"),
    Key("{arch}.expert_weights_norm", _as_they_are, "bool", None),
)


def router_tensor(part: str = "layers.{n}.mlp") -> Tensor:
    """The router of a layer; it is small, and what it gives decides."""
    return Tensor(f"{part}.gate", "blk.{n}.ffn_gate_inp", type="F32")


def expert_tensors(
    part: str = "layers.{n}.mlp", *, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> tuple[Tensor, ...]:
    """Tensors of a layer's router and experts, which a checkpoint holds one by one below `part`."""
    names = {gate: "ffn_gate_exps", up: "ffn_up_exps", down: "ffn_down_exps"}
    return (
        router_tensor(part),
        *(Tensor(f"{part}.experts.{{e}}.{theirs}", f"blk.{{n}}.{ours}") for theirs, ours in names.items()),
    )


def fused_expert_tensors(part: str = "layers.{n}.mlp.experts") -> tuple[Tensor, ...]:
    """Tensors of experts that a checkpoint holds as [experts, gate and up, width] and [experts, width, inner].

    Some hold each expert's matrix as [inputs, outputs]. As in transformers, one that has the right shape is right.
    """

    def turned(values: Floats, settings: Settings, gates: bool) -> Floats:
        return values if values.shape == _expert_shape(settings, gates) else values.T

    def half(which: int) -> Change:
        return lambda values, settings: np.split(turned(values, settings, True), 2)[which]

    def shape(gates: bool) -> Callable[[Shape, Settings], Shape]:
        def find(stored: Shape, settings: Settings) -> Shape:
            outputs, inputs = _expert_shape(settings, gates)
            if len(stored) != 3 or stored[1:] not in ((outputs, inputs), (inputs, outputs)):
                raise FileError(f"{settings.where}: experts of {stored}, not {outputs} x {inputs}")
            return stored[0], outputs // 2 if gates else outputs, inputs

        return find

    return (
        Tensor(f"{part}.gate_up_proj", "blk.{n}.ffn_gate_exps.weight", each=half(0), shape=shape(True)),
        Tensor(f"{part}.gate_up_proj", "blk.{n}.ffn_up_exps.weight", each=half(1), shape=shape(True)),
        Tensor(
            f"{part}.down_proj", "blk.{n}.ffn_down_exps.weight", each=lambda v, settings: turned(v, settings, False),
            shape=shape(False),
        ),
    )  # fmt: skip


def _expert_shape(settings: Settings, gates: bool) -> tuple[int, int]:
    """(outputs, inputs) of an expert's gate and up together, or of what follows these."""
    width, inner = settings.number("hidden_size"), settings.number("moe_intermediate_size")
    return (2 * inner, width) if gates else (width, inner)


def _stored_layers(settings: Settings) -> int:
    more = settings.get("next_token_layers", "int", 0)
    assert isinstance(more, int)
    return settings.number("num_hidden_layers") + more


NEXT_TOKEN_KEYS = (  # behind `KEYS`
    Key("{arch}.block_count", _stored_layers),
    Key("{arch}.nextn_predict_layers", "next_token_layers", "int", None),
)

SWISH = {"hidden_act": "silu", "partial_rotary_factor": 1.0, "rope_parameters.partial_rotary_factor": 1.0}  # `assumed`
PRE_NORM = (Tensor("layers.{n}.post_attention_layernorm", "blk.{n}.ffn_norm"),)
SANDWICH = (  # whose norms multiply with one more than checkpoints hold
    Tensor("layers.{n}.post_attention_layernorm", "blk.{n}.post_attention_norm", plus_one),
    Tensor("layers.{n}.pre_feedforward_layernorm", "blk.{n}.ffn_norm", plus_one),
    Tensor("layers.{n}.post_feedforward_layernorm", "blk.{n}.post_ffw_norm", plus_one),
)


def pre_norm_rules(architecture: str, classes: tuple[str, ...], types: tuple[str, ...], *more: Key) -> Rules:
    """Rules of the ordinary pre-norm decoder, with `more` keys behind the common ones."""
    return Rules(
        part="text",
        architecture=architecture,
        classes=classes,
        types=types,
        assumed=SWISH,
        keys=(*KEYS, *more),
        tensors=(*tensors(), *PRE_NORM),
    )
