"""gpt-oss: experts with biases in 4-bit floats, attention with sinks, and a window for every other layer.

The first layer has a window. The rope is stretched by yarn, whose ramp begins and ends between pairs; llama.cpp rounds
these ends. Gates and what they gate are clamped.

GGUF: general.architecture = "gpt-oss". Oracle: transformers' GptOssForCausalLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import FileError, ModelError
from opsin.gguf import File, Value
from opsin.gguf.dialect import Dialect
from opsin.gguf.rules import Key, Rules, Settings, Shape, Tensor
from opsin.gguf.text_rules import EXPERT_KEYS, SIZE_KEYS, tensors
from opsin.nn.attention import heads_of
from opsin.nn.batch import GroupShape
from opsin.nn.decoder import PreNormDecoder
from opsin.nn.keys import positive_int
from opsin.nn.module import Reader
from opsin.nn.rope import rope_of
from opsin.ops import Glu

SOFTMAX_OF_CHOSEN = 3  # GGUF's number of the gating
NAME = "gpt-oss"


@dataclass(frozen=True, eq=False)
class GptOss(PreNormDecoder):
    """`window`: rows that layers 0, 2, 4 and so on see; 0: they see all."""

    window: int = 0
    GLU: ClassVar[Glu] = "swiglu_oai"

    @property
    def groups(self) -> dict[str, GroupShape]:
        whole = GroupShape(len(self.weights.blk), self.heads.kv, self.heads.width)
        if not self.window:
            return {"self": whole}
        near = replace(whole, layers=-(-whole.layers // 2), window=self.window)
        return (
            {"self": replace(whole, layers=whole.layers // 2), "window": near} if whole.layers > 1 else {"self": near}
        )

    def _place(self, layer: int) -> tuple[str, int]:
        if not self.window:
            return super()._place(layer)
        return "window" if layer % 2 == 0 and len(self.weights.blk) > 1 else "self", layer // 2


def load(file: File, source: Reader) -> GptOss:
    rope = rope_of(file, NAME, heads_of(file, NAME).width, whole=False)
    decoder = GptOss.load(file, source, NAME, pairing="halves", rope=rope, gating=SOFTMAX_OF_CHOSEN)
    if decoder.routing is None:
        raise ModelError(f"{file.path} says no {NAME}.expert_count", hint="the file is incomplete")
    key = f"{NAME}.attention.sliding_window"
    return replace(decoder, window=positive_int(file, key) if file.get_int(key, 0) else 0)


def _found(file: File) -> dict[str, Value]:
    """What files of Ollama's do not say, or say wrong: they name no way to cut texts, or the oldest."""
    gates = file.tensors.get("blk.0.ffn_gate_exps.weight")
    found: dict[str, Value] = {"tokenizer.ggml.pre": "gpt-4o"}
    if f"{NAME}.rope.scaling.type" not in file.metadata and f"{NAME}.rope.scaling.factor" in file.metadata:
        found[f"{NAME}.rope.scaling.type"] = "yarn"
    if f"{NAME}.expert_feed_forward_length" not in file.metadata and gates is not None and len(gates.shape) == 3:
        found[f"{NAME}.expert_feed_forward_length"] = gates.shape[1]
    return found


DECODERS = {"gpt-oss": load}
DIALECTS = (
    Dialect(
        architecture="gptoss", becomes=NAME, found=_found,
        text={"attn_out": "attn_output", "attn_sinks": "attn_sinks.weight", "ffn_norm": "post_attention_norm"},
    ),
)  # fmt: skip


def _check(settings: Settings) -> None:
    """What a file of this architecture cannot say."""
    layers, listed = settings.number("num_hidden_layers"), settings.find("layer_types")
    usual = [f"{'full' if i % 2 else 'sliding'}_attention" for i in range(layers)]
    if listed not in (None, usual):
        raise ModelError(f"{settings.where}: layer_types are not sliding and full in turn", hint="GGUF says no others")
    kind = settings.get("rope_parameters.rope_type|rope_scaling.rope_type", "str", "default")
    if kind not in ("default", "yarn") or (kind == "yarn" and settings.find(_ROPE.format("truncate")) is not False):
        raise ModelError(f"{settings.where}: a rope of the kind {kind!r:.40}", hint="yarn without truncate is known")


def _yarn(name: str, kind: Callable[[float], object] = float) -> Callable[[Settings], object]:
    def find(settings: Settings) -> object:
        told = settings.find(_ROPE.format(name)) if _scaling(settings) else None
        return None if told is None else kind(settings.check(name, told, "float"))  # type: ignore[arg-type]

    return find


def _scaling(settings: Settings) -> str | None:
    return "yarn" if settings.find(_ROPE.format("rope_type")) == "yarn" else None


def _expert(which: slice) -> Callable[[Floats, Settings], Floats]:
    """Rows of an expert, of a matrix that stands as [inputs, outputs]; gates and what they gate take turns."""
    return lambda values, settings: np.ascontiguousarray(values.T[which])


def _turned(parts: int) -> Callable[[Shape, Settings], Shape]:
    return lambda shape, settings: (shape[0], shape[2] // parts, shape[1])


def _halved(shape: Shape, settings: Settings) -> Shape:
    return shape[0], shape[1] // 2


def _blocks(which: slice) -> Callable[[Bytes, Bytes], Bytes]:
    """Codes [rows, groups, 16], neighbours in a byte, as blocks: the scale, then codes with those 16 further on."""

    def make(codes: Bytes, scales: Bytes) -> Bytes:
        codes, scales = codes[which], scales[which]
        apart = np.stack([codes & 15, codes >> 4], -1).reshape(*scales.shape, 32)
        return np.concatenate([scales[..., None], apart[..., :16] | apart[..., 16:] << np.uint8(4)], -1)

    return make


def _coded(parts: int) -> Callable[[Shape, Settings], Shape]:
    def find(shape: Shape, settings: Settings) -> Shape:
        if len(shape) != 4 or shape[3] != 16 or shape[1] % parts:
            raise FileError(f"{settings.where}: experts of {shape} are no codes of 4 bits", hint="it is damaged")
        return shape[0], shape[1] // parts, 32 * shape[2]

    return find


def _fours(theirs: str, ours: str, which: slice, parts: int) -> Tensor:
    """Experts as they are published, in MXFP4; transformers stores them as floats."""
    return Tensor(
        f"{_EXPERTS}.{theirs}_blocks", f"{_BLOCK}.{ours}.weight", type="MXFP4", shape=_coded(parts),
        scales=f"{theirs}_scales", blocks=_blocks(which),
    )  # fmt: skip


_ROPE = "rope_parameters.{0}|rope_scaling.{0}"
_GATES, _UPS, _ALL = slice(0, None, 2), slice(1, None, 2), slice(None)
_LAYER, _BLOCK = "layers.{n}", "blk.{n}"
_EXPERTS = f"{_LAYER}.mlp.experts"
RULES = (
    Rules(
        part="text",
        architecture=NAME,
        classes=("GptOssForCausalLM",),
        types=("gpt_oss",),
        assumed={"hidden_act": "silu", "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
        check=_check,
        keys=(
            *SIZE_KEYS,
            Key("{arch}.context_length", "max_position_embeddings"),
            *EXPERT_KEYS,
            Key("{arch}.attention.sliding_window", "sliding_window", "int", 0),
            Key("{arch}.rope.freq_base", _ROPE.format("rope_theta") + "|rope_theta", "float", 150000.0),
            Key("{arch}.rope.scaling.type", _scaling, "str", None),
            Key("{arch}.rope.scaling.factor", _yarn("factor"), "float", None),
            Key(
                "{arch}.rope.scaling.original_context_length", _yarn("original_max_position_embeddings", int), "int",
                None,
            ),
            Key("{arch}.rope.scaling.yarn_beta_fast", _yarn("beta_fast"), "float", None),
            Key("{arch}.rope.scaling.yarn_beta_slow", _yarn("beta_slow"), "float", None),
        ),
        dropped=(f"{_EXPERTS}.gate_up_proj_scales", f"{_EXPERTS}.down_proj_scales"),
        tensors=(
            *tensors(),
            Tensor(f"{_LAYER}.post_attention_layernorm", f"{_BLOCK}.post_attention_norm"),
            Tensor(f"{_LAYER}.self_attn.sinks", f"{_BLOCK}.attn_sinks.weight"),
            Tensor(f"{_LAYER}.mlp.router", f"{_BLOCK}.ffn_gate_inp", type="F32"),
            Tensor(
                f"{_EXPERTS}.gate_up_proj", f"{_BLOCK}.ffn_gate_exps.weight", each=_expert(_GATES), shape=_turned(2)
            ),
            Tensor(f"{_EXPERTS}.gate_up_proj", f"{_BLOCK}.ffn_up_exps.weight", each=_expert(_UPS), shape=_turned(2)),
            Tensor(f"{_EXPERTS}.down_proj", f"{_BLOCK}.ffn_down_exps.weight", each=_expert(_ALL), shape=_turned(1)),
            Tensor(
                f"{_EXPERTS}.gate_up_proj_bias", f"{_BLOCK}.ffn_gate_exps.bias", lambda v, _: v[:, _GATES], _halved
            ),
            Tensor(f"{_EXPERTS}.gate_up_proj_bias", f"{_BLOCK}.ffn_up_exps.bias", lambda v, _: v[:, _UPS], _halved),
            Tensor(f"{_EXPERTS}.down_proj_bias", f"{_BLOCK}.ffn_down_exps.bias"),
            _fours("gate_up_proj", "ffn_gate_exps", _GATES, 2),
            _fours("gate_up_proj", "ffn_up_exps", _UPS, 2),
            _fours("down_proj", "ffn_down_exps", _ALL, 1),
        ),
    ),
)  # fmt: skip
