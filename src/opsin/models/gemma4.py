"""Gemma 4: windows and whole sight by heads of other widths, keys that later layers share, embeddings for each layer.

Values are normed, and are the keys where a layer has no matrix for them. The last `shared_kv_layers` write nothing:
they read what the last layer of their kind before them wrote, so rows whose logits nobody wants end before them. A
layer's embeddings (`per_layer_token_embd`, two thirds of a small model's file) are read by row from the file.

GGUF: general.architecture = "gemma4"; norms are used as they stand. Oracle: transformers' Gemma4ForCausalLM. In a
picture rows see each other in layers with a window alone, and the tower's file says in which models they do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import ComputedTensor, Key, Rules, Settings, Tensor
from opsin.gguf.text_rules import SIZE_KEYS, tensors
from opsin.nn.attention import WIDEST, Heads, SharingAttention
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.decoder import DecoderWeights, OverWeights
from opsin.nn.experts import ExpertFfn, routing_of
from opsin.nn.ffn import GatedFfn
from opsin.nn.keys import number, positive_float, positive_int
from opsin.nn.layer_embeddings import LayerEmbeddings
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Gate, RmsNorm
from opsin.nn.rope import as_frequencies, frequencies, rope_of
from opsin.ops import Array
from opsin.ops.routes import Routing

LARGEST_CAP = 1e6  # of logits; published ones are 30


@dataclass(frozen=True, eq=False)
class LayerKind:
    """One kind of layers: their KV group, their heads and their rope."""

    group: str
    window: int
    heads: Heads
    frequencies: Array
    rope_scale: float = 1.0


@dataclass(frozen=True)
class SharedPlace:
    """Where a layer's keys and values lie: its kind, and a number in that kind's group, which it may only read."""

    kind: int
    number: int
    shared: bool


class Gemma4Experts(Module):
    """What a layer's experts make of a row beside its FFN. The router sees the row as it stands, normed by itself."""

    ffn: Annotated[ExpertFfn, at("")]
    scale: Annotated[Array, at("ffn_gate_inp.scale")]
    norm: Annotated[RmsNorm, at("pre_ffw_norm_2")]
    post_norm: Annotated[RmsNorm, at("post_ffw_norm_2")]
    plain_norm: Annotated[RmsNorm, at("post_ffw_norm_1")]

    @classmethod
    def is_there(cls, source: Reader, path: str) -> bool:
        return ExpertFfn.is_there(source, path)

    def check(self, how: Routing, width: int, experts: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.ffn.check(how, width, experts)
        if self.scale.shape != (width,):
            raise ModelError(f"{self.tensor('ffn_gate_inp.scale')} has {self.scale.width} values, not {width}")
        for norm in (self.norm, self.post_norm, self.plain_norm):
            norm.check(width)

    def __call__(self, x: Array, plain: Array, how: Routing, eps: float) -> Array:
        """Rows x [rows, width] and what the FFN makes of them -> the sum of both parts, each normed."""
        routed = x.width**-0.5 * x.ops.rms_norm(x, self.scale, eps)
        made = self.ffn(self.norm(x, eps), "gelu", how, routed=routed)
        return self.plain_norm(plain, eps) + self.post_norm(made, eps)


class Gemma4Block(Module):
    attn_norm: RmsNorm
    attn: Annotated[SharingAttention, at("")]
    post_attention_norm: RmsNorm
    ffn_norm: RmsNorm
    ffn: Annotated[GatedFfn, at("")]
    experts: Annotated[Gemma4Experts | None, at("")]
    post_ffw_norm: RmsNorm
    scale: Annotated[Gate | None, at("layer_output_scale.weight")]

    def feed(self, x: Array, how: Routing | None, eps: float) -> Array:
        """x [rows, width] after the FFN, and the experts where there are any."""
        made = self.ffn(self.ffn_norm(x, eps), "gelu")
        if self.experts is not None and how is not None:
            made = self.experts(x, made, how, eps)
        return x + self.post_ffw_norm(made, eps)


class Gemma4Weights(DecoderWeights):
    blk: list[Gemma4Block]


@dataclass(frozen=True, eq=False)
class Gemma4(OverWeights):
    """`cap` bounds logits; 0 does not. `routing` chooses experts, where layers have them."""

    weights: Gemma4Weights
    embeddings: LayerEmbeddings | None
    eps: float
    context: int
    kinds: tuple[LayerKind, ...]
    places: tuple[SharedPlace, ...]
    cap: float
    routing: Routing | None
    axes: int = 1

    @classmethod
    def load(cls, file: File, source: Reader) -> Gemma4:
        weights = Gemma4Weights.read(source)
        weights.check(file, "gemma4", weights.blk)
        local, routing = _local(file, len(weights.blk)), routing_of(file, "gemma4")
        kinds, places = _kinds(file, source, local), _places(file, local)
        for block, place in zip(weights.blk, places, strict=True):
            block.attn.check(kinds[place.kind].heads, weights.width, shared=place.shared)
            _check_experts(file, block, routing, weights.width)
        return cls(
            weights=weights,
            embeddings=_embeddings(file, source, weights),
            eps=positive_float(file, "gemma4.attention.layer_norm_rms_epsilon", 1e-6),
            context=positive_int(file, "gemma4.context_length"),
            kinds=kinds,
            places=places,
            cap=number(file, "gemma4.final_logit_softcapping", 0.0, least=0.0, most=LARGEST_CAP),
            routing=routing,
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        counts = [sum(place.kind == i and not place.shared for place in self.places) for i in range(len(self.kinds))]
        return {
            kind.group: GroupShape(count, kind.heads.kv, kind.heads.width, kind.window, causal=not kind.window)
            for kind, count in zip(self.kinds, counts, strict=True)
        }

    def hidden(self, batch: Batch) -> Array:
        w, tap = self.weights, batch.tap
        x = tap("embed", batch.overlay(self.width**0.5 * w.token_embd(batch.ids)))
        own = None if self.embeddings is None else self.embeddings(batch.ids, x, self.eps)
        writing = sum(not place.shared for place in self.places)
        x = self._blocks(x, batch, own, range(writing))
        ops, wanted = x.ops, batch.outputs
        x, own = ops.take(x, wanted), None if own is None else ops.take(own, wanted)
        if writing < len(w.blk):
            groups = {kind.group: batch.groups[kind.group].of_rows(wanted) for kind in self.kinds}
            batch = replace(batch, positions=ops.take(batch.positions, wanted), groups=groups)
            x = self._blocks(x, batch, own, range(writing, len(w.blk)))
        return tap("norm", w.output_norm(x, self.eps))

    def logits(self, x: Array) -> Array:
        logits = super().logits(x)
        return x.ops.softcap(logits, self.cap) if self.cap else logits

    def _blocks(self, x: Array, batch: Batch, own: Array | None, layers: range) -> Array:
        """x [rows, width] after these layers; `own` are the embeddings of all layers."""
        tables = [x.ops.rope_table(batch.positions, kind.frequencies, kind.rope_scale) for kind in self.kinds]
        for i in layers:
            block, place, name = self.weights.blk[i], self.places[i], f"blk.{i}.attn"
            kind, table = self.kinds[place.kind], tables[place.kind]
            kept, inner = batch.groups[kind.group], block.attn_norm(x, self.eps)
            if not place.shared:
                block.attn.write(inner, kept, place.number, kind.heads, table, self.eps)
            out = block.attn.look(
                inner, batch, kept, layer=place.number, heads=kind.heads, table=table, eps=self.eps, name=name
            )
            x = block.feed(x + block.post_attention_norm(out, self.eps), self.routing, self.eps)
            if self.embeddings is not None and own is not None:
                x = self.embeddings.give(x, own, i, self.eps)
            x = batch.tap(f"blk.{i}.out", x if block.scale is None else block.scale.value * x)
        return x


def _check_experts(file: File, block: Gemma4Block, routing: Routing | None, width: int) -> None:
    if (block.experts is None) != (routing is None):
        raise ModelError(f"{file.path}: {block.tensor('ffn_gate_inp')} and gemma4.expert_count do not go together")
    if block.experts is not None and routing is not None:
        block.experts.check(routing, width, positive_int(file, "gemma4.expert_count"))


def _embeddings(file: File, source: Reader, weights: Gemma4Weights) -> LayerEmbeddings | None:
    """Those of the layers, where the file says that there are any."""
    key = "gemma4.embedding_length_per_layer_input"
    if not file.get_int(key, 0):
        if source.has("per_layer_token_embd.weight"):
            raise ModelError(f"{file.path}: {key} is 0, and there is per_layer_token_embd.weight", hint="convert again")
        return None
    narrow, layers = positive_int(file, key), len(weights.blk)
    return LayerEmbeddings.load(source, ids=weights.vocabulary, width=weights.width, narrow=narrow, layers=layers)


def _local(file: File, layers: int) -> list[bool]:
    """Which layers see only a window."""
    key = "gemma4.attention.sliding_window_pattern"
    return [bool(value) for value in _each(file, key, file.get_bools(key).tolist(), layers)]


def _each(file: File, key: str, listed: list[int], layers: int) -> list[int]:
    if len(listed) != layers:
        raise ModelError(f"{file.path}: {key} has {len(listed)} values for {layers} layers")
    return listed


def _kinds(file: File, source: Reader, local: list[bool]) -> tuple[LayerKind, ...]:
    """The kinds of layers that there are: those that see everything, then those with a window; the first is "self"."""
    kinds = [_near(file, source, local) if near else _whole(file, source, local) for near in sorted(set(local))]
    return tuple(replace(kind, group="self" if i == 0 else "window") for i, kind in enumerate(kinds))


def _whole(file: File, source: Reader, local: list[bool]) -> LayerKind:
    heads = _heads(file, positive_int(file, "gemma4.attention.key_length"), local, near=False)
    rope = rope_of(file, "gemma4", heads.width, source.values("rope_freqs.weight"), base=1e6)
    return LayerKind("self", 0, heads, source.ops.constant(rope.frequencies), rope.scale)


def _near(file: File, source: Reader, local: list[bool]) -> LayerKind:
    width = positive_int(file, "gemma4.attention.key_length")
    heads = _heads(file, positive_int(file, "gemma4.attention.key_length_swa", width), local, near=True)
    turned = file.get_int("gemma4.rope.dimension_count_swa", heads.width)
    if turned % 2 or not 0 < turned <= heads.width:
        raise ModelError(f"gemma4.rope.dimension_count_swa is {turned}; heads are {heads.width} wide")
    base = positive_float(file, "gemma4.rope.freq_base_swa", 10000.0)
    table = as_frequencies(file, frequencies(turned, base))
    window = positive_int(file, "gemma4.attention.sliding_window")
    return LayerKind("window", window, heads, source.ops.constant(table))


def _heads(file: File, width: int, local: list[bool], *, near: bool) -> Heads:
    """Of the layers of one kind, whose scores are not scaled."""
    query, key = positive_int(file, "gemma4.attention.head_count"), "gemma4.attention.head_count_kv"
    if isinstance(file.metadata.get(key), np.ndarray):
        listed = _each(file, key, file.get_ints(key).tolist(), len(local))
        counts = {count for count, is_near in zip(listed, local, strict=True) if is_near == near}
    else:
        counts = {positive_int(file, key, query)}
    kv = min(counts)
    if len(counts) > 1 or kv < 1 or query % kv or width > WIDEST:
        raise ModelError(f"{file.path}: {key} is {sorted(counts)[:4]} of {query} heads, {width} wide")
    return Heads(query, kv, width, 1.0)


def _places(file: File, local: list[bool]) -> tuple[SharedPlace, ...]:
    key, mixed = "gemma4.attention.shared_kv_layers", len(set(local)) > 1
    writing = len(local) - file.get_int(key, 0)
    if not (0 < writing <= len(local) and set(local[:writing]) == set(local)):
        raise ModelError(f"{file.path}: {key} is {len(local) - writing}, of {len(local)} layers with two kinds")
    return tuple(
        SharedPlace(int(mixed and near), local[: min(i, writing)].count(near) - int(i >= writing), i >= writing)
        for i, near in enumerate(local)
    )


def _layer_types(settings: Settings) -> list[bool]:
    """Which layers have a window: listed, or all but every sixth; the last one has none."""
    listed, layers = settings.find("layer_types"), settings.number("num_hidden_layers")
    if isinstance(listed, list):
        local = [kind == "sliding_attention" for kind in listed]
    else:
        local = [(i + 1) % 6 != 0 for i in range(layers)]
    return [*local[:-1], False]


def _of_whole(settings: Settings, name: str, old: str, default: int | None) -> int | None:
    """A number of the layers that see everything, which differs from that of the others."""
    layers = settings.find("per_layer_config")
    if isinstance(layers, dict):
        for i, near in enumerate(_layer_types(settings)):
            told = layers.get(str(i), layers.get("full_attention", {}))
            if not near and isinstance(told, dict) and name in told:
                return int(settings.check(f"per_layer_config.{i}.{name}", told[name], "int"))  # type: ignore[call-overload, no-any-return]
        return None
    return settings.number(old, default) if settings.find(old) is not None or default is not None else None


def _whole_width(settings: Settings) -> int:
    width = _of_whole(settings, "head_dim", "global_head_dim", 512)
    return settings.number("head_dim") if width is None else width


def _kv_heads(settings: Settings) -> list[int] | None:
    """Of each layer, where they differ."""
    few = _of_whole(settings, "num_key_value_heads", "num_global_key_value_heads", None)
    if few is None or (settings.find("per_layer_config") is None and not settings.find("attention_k_eq_v")):
        return None
    return [settings.number("num_key_value_heads") if near else few for near in _layer_types(settings)]


def _ffn_widths(settings: Settings) -> list[int] | None:
    """Of each layer, where those that share keys have twice the width."""
    if not settings.find("use_double_wide_mlp"):
        return None
    width, layers = settings.number("intermediate_size"), settings.number("num_hidden_layers")
    return [width * (1 + (i >= layers - _shared(settings))) for i in range(layers)]


def _shared(settings: Settings) -> int:
    return int(settings.get("num_kv_shared_layers", "int", 0))  # type: ignore[call-overload, no-any-return]


def _of_experts(settings: Settings, name: str) -> int | None:
    """A number of experts, where there are any."""
    return settings.number(name) if settings.find("enable_moe_block") else None


def _rope(settings: Settings, kind: str, name: str, default: float) -> float:
    told = settings.get(f"rope_parameters.{kind}_attention.{name}", "float", default)
    assert isinstance(told, float)
    return told


def _unturned(settings: Settings) -> Floats:
    """Divisors of frequencies: 1 for the pairs that turn, and so much for the others that they do not."""
    pairs = _whole_width(settings) // 2
    turned = int(_rope(settings, "full", "partial_rotary_factor", 0.25) * 2 * pairs // 2)
    return np.where(np.arange(pairs) < turned, 1.0, 1e30).astype(np.float32)


def _check(settings: Settings) -> None:
    if settings.find("use_bidirectional_attention") == "all":
        raise ModelError(f"{settings.where}: a model that embeds texts", hint="only models that write are converted")
    kinds = [settings.find(f"rope_parameters.{kind}_attention.rope_type") for kind in ("full", "sliding")]
    if kinds[0] not in (None, "proportional") or kinds[1] not in (None, "default"):
        raise ModelError(f"{settings.where}: ropes of the kinds {kinds}", hint="they cannot be converted yet")


_DEFAULTS = {
    "vocab_size": 262144, "max_position_embeddings": 131072, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "sliding_window": 512,
}  # fmt: skip
_PARTS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "per_layer_input_gate": "inp_gate", "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm", "layer_scalar": "layer_output_scale.weight",
    "post_feedforward_layernorm_1": "post_ffw_norm_1", "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2", "router.proj": "ffn_gate_inp",
    "router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight", "experts.down_proj": "ffn_down_exps.weight",
}  # fmt: skip
_AROUND = {
    "embed_tokens_per_layer": "per_layer_token_embd", "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
}  # fmt: skip
VISIBLE = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
DECODERS = {"gemma4": Gemma4.load}
RULES = (
    Rules(
        part="text",
        architecture="gemma4",
        classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
        types=("gemma4_text",),
        merged="gemma4",
        visible=VISIBLE,
        assumed={"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        keys=(
            *SIZE_KEYS,
            Key("{arch}.context_length", "max_position_embeddings"),
            Key("{arch}.feed_forward_length", _ffn_widths, "ints", None),
            Key("{arch}.embedding_length_per_layer_input", "hidden_size_per_layer_input", "int", 256),
            Key("{arch}.attention.head_count_kv", _kv_heads, "ints", None),
            Key("{arch}.attention.shared_kv_layers", _shared),
            Key("{arch}.attention.key_length", _whole_width),
            Key("{arch}.attention.value_length", _whole_width),
            Key("{arch}.attention.key_length_swa", "head_dim"),
            Key("{arch}.attention.value_length_swa", "head_dim"),
            Key("{arch}.attention.sliding_window", "sliding_window"),
            Key("{arch}.attention.sliding_window_pattern", _layer_types, "bools"),
            Key("{arch}.rope.freq_base", lambda s: _rope(s, "full", "rope_theta", 1e6), "float"),
            Key("{arch}.rope.freq_base_swa", lambda s: _rope(s, "sliding", "rope_theta", 1e4), "float"),
            Key("{arch}.rope.dimension_count", _whole_width),
            Key("{arch}.rope.dimension_count_swa", "head_dim"),
            Key("{arch}.expert_count", lambda s: _of_experts(s, "num_experts"), "int", None),
            Key("{arch}.expert_used_count", lambda s: _of_experts(s, "top_k_experts"), "int", None),
            Key("{arch}.expert_feed_forward_length", lambda s: _of_experts(s, "moe_intermediate_size"), "int", None),
            Key("{arch}.final_logit_softcapping", "final_logit_softcapping", "float", None),
        ),
        tensors=(
            *tensors(),
            *(Tensor(f"layers.{{n}}.{theirs}", f"blk.{{n}}.{ours}") for theirs, ours in _PARTS.items()),
            *(Tensor(theirs, ours) for theirs, ours in _AROUND.items()),
        ),
        made=(ComputedTensor("rope_freqs.weight", _unturned),),
        defaults=_DEFAULTS,
        check=_check,
    ),
)
