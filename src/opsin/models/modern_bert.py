"""ModernBERT: an encoder with norms before each part, gated FFNs, and windows for two layers of three.

Positions turn, faster where a layer has a window. gte-modernbert, granite-embedding and mmBERT are checkpoints of it.

GGUF: general.architecture = "modern-bert"; ffn_up holds the gate before the rest. Oracle: transformers'
ModernBertModel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Rules, Settings, Tensor, constant
from opsin.gguf.text_rules import HEADS
from opsin.nn.attention import Heads, RowAttention, heads_of
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.encoder import EncoderFfn, OverEmbeddings
from opsin.nn.keys import positive_float, positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Embedding, PlainLayerNorm
from opsin.nn.rope import as_frequencies, frequencies, rope_of
from opsin.nn.sandwich import Kind, local_layers
from opsin.ops import Activation, Array

PERIOD = 3  # every third layer, from the first on, sees everything, where the file does not say
_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu_erf", "silu": "silu"}


class ModernBlock(Module):
    attn_norm: PlainLayerNorm | None
    attn: Annotated[RowAttention, at("")]
    ffn_norm: PlainLayerNorm
    ffn: Annotated[EncoderFfn, at("")]


class ModernWeights(Module):
    token_embd: Embedding
    token_embd_norm: PlainLayerNorm
    blk: list[ModernBlock]
    output_norm: PlainLayerNorm


@dataclass(frozen=True, eq=False)
class ModernBert(OverEmbeddings):
    """`kinds`: layers that see everything, and those with a window; `local`: which layers are of the second kind."""

    weights: ModernWeights
    heads: Heads
    eps: float
    context: int
    activation: Activation
    kinds: tuple[Kind, Kind]
    local: tuple[bool, ...]
    axes: int = 1
    segments: int = 0
    vocabulary: int = 0

    @classmethod
    def load(cls, file: File, source: Reader, prefix: str = "modern-bert") -> ModernBert:
        weights, heads = ModernWeights.read(source), heads_of(file, prefix)
        layers = positive_int(file, f"{prefix}.block_count")
        if len(weights.blk) != layers:
            raise ModelError(f"{file.path} holds {len(weights.blk)} of its {layers} layers", hint="it is incomplete")
        for i, block in enumerate(weights.blk):  # a cache is made for these heads before anything runs
            block.attn.check(heads)
            if i and block.attn_norm is None:
                raise ModelError(f"there is no tensor blk.{i}.attn_norm.weight", hint="the file is incomplete")
        told = file.get_str(f"{prefix}.hidden_activation", "gelu")
        if told not in _ACTIVATIONS:
            raise ModelError(f"{prefix}.hidden_activation is {told!r:.40}", hint=f"known: {', '.join(_ACTIVATIONS)}")
        return cls(
            weights=weights,
            heads=heads,
            eps=positive_float(file, f"{prefix}.attention.layer_norm_epsilon"),
            context=positive_int(file, f"{prefix}.context_length"),
            activation=_ACTIVATIONS[told],
            kinds=_kinds(file, source, prefix, heads),
            local=tuple(local_layers(file, prefix, layers, period=PERIOD, begins=True)),
        )

    @property
    def groups(self) -> dict[str, GroupShape]:
        return {
            kind.group: GroupShape(1, self.heads.kv, self.heads.width, kind.window, bidirectional=True)
            for kind in self.kinds
        }

    def hidden(self, batch: Batch) -> Array:
        w, eps, tap = self.weights, self.eps, batch.tap
        x = tap("embed", w.token_embd_norm(w.token_embd(batch.ids), eps))
        tables = [x.ops.rope_table(batch.positions, kind.frequencies, kind.rope_scale) for kind in self.kinds]
        for i, block in enumerate(w.blk):
            local = self.local[i]
            x = block.attn(
                x if block.attn_norm is None else block.attn_norm(x, eps), batch, group=self.kinds[local].group,
                layer=0, heads=self.heads, rope=tables[local], pairing="halves", eps=eps, name=f"blk.{i}.attn",
                residual=x,
            )  # fmt: skip
            x = tap(f"blk.{i}.out", block.ffn(block.ffn_norm(x, eps), self.activation, residual=x))
        return tap("norm", w.output_norm(x.ops.take(x, batch.outputs), eps))


def _kinds(file: File, source: Reader, prefix: str, heads: Heads) -> tuple[Kind, Kind]:
    """Layers that see everything, and those whose window lies half on each side of a row."""
    rope, constant = rope_of(file, prefix, heads.width, base=160000.0), source.ops.constant
    whole = Kind("self", 0, constant(rope.frequencies), rope.scale)
    base = positive_float(file, f"{prefix}.rope.freq_base_swa", 10000.0)
    window = positive_int(file, f"{prefix}.attention.sliding_window", 128)
    near = as_frequencies(file, frequencies(2 * len(rope.frequencies), base))
    return whole, Kind("window", window // 2 + 1, constant(near))


def _local(settings: Settings) -> list[bool]:
    """Which layers see only a window."""
    listed, layers = settings.find("layer_types"), settings.number("num_hidden_layers")
    if isinstance(listed, list):
        return [kind == "sliding_attention" for kind in listed]
    period = settings.number("global_attn_every_n_layers", PERIOD)
    return [i % period != 0 for i in range(layers)]


def _period(settings: Settings) -> int | None:
    local = _local(settings)
    return next((p for p in range(1, len(local) + 1) if local == [i % p != 0 for i in range(len(local))]), None)


def _irregular(settings: Settings) -> list[bool] | None:
    return None if _period(settings) else _local(settings)


_ROPE = "rope_parameters.{}_attention.rope_theta|{}_rope_theta"
_MODERN = Rules(
    part="text",
    architecture="modern-bert",
    classes=("ModernBertModel", "ModernBertForMaskedLM"),
    assumed={"norm_bias": False, "attention_bias": False, "mlp_bias": False},
    keys=(
        Key("{arch}.context_length", "max_position_embeddings"),
        Key("{arch}.embedding_length", "hidden_size"),
        Key("{arch}.block_count", "num_hidden_layers"),
        Key("{arch}.feed_forward_length", "intermediate_size"),
        Key("{arch}.attention.head_count", HEADS),
        Key("{arch}.attention.layer_norm_epsilon", "norm_eps|layer_norm_eps", "float", 1e-5),
        constant("{arch}.attention.causal", False, "bool"),
        Key("{arch}.attention.sliding_window", "local_attention", "int", 128),
        Key("{arch}.attention.sliding_window_pattern", _period, "int", None),
        Key("{arch}.attention.sliding_window_pattern", _irregular, "bools", None),
        Key("{arch}.rope.freq_base", _ROPE.format("full", "global"), "float", 160000.0),
        Key("{arch}.rope.freq_base_swa", _ROPE.format("sliding", "local"), "float", 10000.0),
        Key("{arch}.hidden_activation", "hidden_activation", "str", "gelu"),
    ),
    tensors=tuple(
        Tensor(begin + theirs, ours)
        for begin in ("", "model.")
        for theirs, ours in {
            "embeddings.tok_embeddings.weight": "token_embd.weight",
            "embeddings.norm": "token_embd_norm",
            "layers.{n}.attn_norm": "blk.{n}.attn_norm",
            "layers.{n}.attn.Wqkv": "blk.{n}.attn_qkv",
            "layers.{n}.attn.Wo": "blk.{n}.attn_output",
            "layers.{n}.mlp_norm": "blk.{n}.ffn_norm",
            "layers.{n}.mlp.Wi": "blk.{n}.ffn_up",
            "layers.{n}.mlp.Wo": "blk.{n}.ffn_down",
            "final_norm": "output_norm",
        }.items()
    ),
    dropped=("head.*", "decoder.*"),
)


def _ranks_by(settings: Settings) -> int:
    """llama.cpp's number of what the head reads."""
    known = {"mean": 1, "cls": 2}
    told = settings.get("classifier_pooling", "str", "cls")
    if told not in known:
        raise ModelError(f"{settings.where}: classifier_pooling is {told!r:.40}", hint=f"known: {', '.join(known)}")
    return known[str(told)]


TEXT_ENCODERS = {"modern-bert": ModernBert.load}
RULES = (
    _MODERN,
    replace(
        _MODERN,
        classes=("ModernBertForSequenceClassification",),
        assumed={**_MODERN.assumed, "classifier_activation": "gelu"},
        keys=(
            *_MODERN.keys,
            constant("{arch}.pooling_type", 4, "int"),
            Key("{arch}.classifier.pooling_type", _ranks_by, "int"),
        ),
        tensors=(
            *_MODERN.tensors,
            Tensor("head.dense", "cls"),
            Tensor("head.norm", "cls.norm"),
            Tensor("classifier", "cls.output"),
        ),
        dropped=(),
    ),
)
