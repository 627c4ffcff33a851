"""Gemma 4: sound through a conformer, whose rows of 40 ms see themselves and the eleven before.

A layer is half a feed-forward part, attention, a short convolution of each channel, and the other half. What a row asks
is held against keys and against their distances, and the scores are capped. Windows of 30 seconds are heard one by one;
less than a frame gets silence behind it.

GGUF: clip.audio.projector_type = "gemma4a", as llama.cpp writes it: a.blk.N.conv_norm stands before the convolution and
a.blk.N.norm_conv behind it, and per_dim_scale is what softplus gives. The norms' key is not asked: files say another
number than models have. llama.cpp takes the larger of a band's loudness and its floor, where the makers take the sum.
Oracle: transformers' Gemma4ForConditionalGeneration with Gemma4AudioFeatureExtractor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys
from opsin.gguf.rules import Key, Rules, Settings, Shape, Tensor
from opsin.gguf.vision_rules import expect
from opsin.media.htk_mel import htk_log_mel, whole_frames
from opsin.media.sound import RATE, Waveform
from opsin.nn.attention import Heads
from opsin.nn.convolution import HalvingConv, half
from opsin.nn.hearing import bands_of
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import ClampedLinear, Linear, PlainLayerNorm, RmsNorm
from opsin.nn.sounds import sound_span
from opsin.ops import Array, Ops, most
from opsin.spans import MediaSpan, Patches

EPS, CAP = 1e-6, 50.0  # of norms; of scores
SEEN, TAPS = 12, 5  # rows that a row sees, itself among them, and that a convolution does
WINDOW = 30 * RATE  # samples
_KEYS = math.log(1 + math.e) / math.log(2)  # that keys are multiplied with


class Halving(Module):
    conv: Annotated[HalvingConv, at("")]
    norm: PlainLayerNorm

    def check(self, channels: int) -> int:
        """Channels that it makes of so many. Raises ModelError, naming the tensor, where something does not fit."""
        made = self.conv.check_channels(channels)
        self.norm.check(made)
        return made


class Ffn(Module):
    """Half of what it gives is added."""

    norm: Annotated[RmsNorm, at("ffn_norm")]
    up: Annotated[ClampedLinear, at("ffn_up")]
    down: Annotated[ClampedLinear, at("ffn_down")]
    post_norm: Annotated[RmsNorm, at("ffn_post_norm")]

    def check(self, width: int, inner: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        self.norm.check(width)
        self.up.check(width, inner)
        self.down.check(inner, width)
        self.post_norm.check(width)

    def __call__(self, x: Array) -> Array:
        inner = x.ops.activate(self.up(self.norm(x, EPS)), "silu")
        return x + 0.5 * self.post_norm(self.down(inner), EPS)


class SecondFfn(Ffn):
    norm: Annotated[RmsNorm, at("ffn_norm_1")]
    up: Annotated[ClampedLinear, at("ffn_up_1")]
    down: Annotated[ClampedLinear, at("ffn_down_1")]
    post_norm: Annotated[RmsNorm, at("ffn_post_norm_1")]


@dataclass(frozen=True, eq=False)
class Sight:
    """What each row of a window sees, as keys of its own: those SEEN rows that end with it.

    Attributes:
        waves: [SEEN, width] sines and cosines of the distances.
        rows: [rows * SEEN] the row of each key, and
        distances: how far it is before.
        first, last: [rows] the keys that there are.
    """

    waves: Array
    rows: Array
    distances: Array
    first: Array
    last: Array

    @classmethod
    def of(cls, ops: Ops, rows: int, width: int) -> Sight:
        before = np.arange(SEEN - 1, -1, -1)
        row = np.arange(rows)[:, None] - before
        slow = np.exp(-math.log(10000) / max(1, width // 2 - 1) * np.arange(width // 2))
        turns = np.arange(SEEN)[:, None] * slow
        waves = np.concatenate([np.sin(turns), np.cos(turns)], axis=1)
        numbers = (np.maximum(0, row), np.tile(before, rows), np.sum(row < 0, axis=1), np.full(rows, SEEN))
        places = (ops.constant(number.reshape(-1).astype(np.int32)) for number in numbers)
        return cls(ops.constant(waves.astype(np.float32)), *places)


class DistanceAttention(Module):
    norm: Annotated[RmsNorm, at("attn_pre_norm")]
    q: Annotated[ClampedLinear, at("attn_q")]
    k: Annotated[ClampedLinear, at("attn_k")]
    v: Annotated[ClampedLinear, at("attn_v")]
    scale: Annotated[Array, at("per_dim_scale.weight")]
    distance: Annotated[Linear, at("attn_k_rel")]
    out: Annotated[ClampedLinear, at("attn_out")]
    post_norm: Annotated[RmsNorm, at("attn_post_norm")]

    def check(self, heads: Heads) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        width = heads.query * heads.width
        for norm in (self.norm, self.post_norm):
            norm.check(width)
        for matrix in (self.q, self.k, self.v, self.distance, self.out):
            matrix.check(width, width)
        if self.scale.shape != (heads.width,):
            raise ModelError(f"{self.tensor('per_dim_scale.weight')} is {self.scale.shape}, not ({heads.width},)")

    def __call__(self, x: Array, sight: Sight, heads: Heads) -> Array:
        ops, inner, shape = x.ops, self.norm(x, EPS), (heads.query, heads.width)
        scales = ops.take(ops.reshape(self.scale, (1, heads.width)), ops.constant(np.zeros(heads.query, np.int32)))
        k = ops.take(_KEYS * self.k(inner), sight.rows) + ops.take(self.distance(sight.waves), sight.distances)
        v = ops.take(self.v(inner), sight.rows)
        seen = ops.attend_dense(
            self.q(inner).reshape(*shape) * scales, k.reshape(*shape), v.reshape(*shape), sight.first, sight.last,
            scale=heads.scale, parts=most(x.shape[0]), softcap=heads.softcap,
        )  # fmt: skip
        return x + self.post_norm(self.out(seen.reshape(heads.query * heads.width)), EPS)


class ChannelTaps(Module):
    """What each channel is multiplied with, of a row and those before: [TAPS, channels], and nothing behind them."""

    weight: Array

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        part, values = cls.__new__(cls), source.values(f"{path}.weight")
        if values.ndim != 2 or values.shape[1] != TAPS:
            raise ModelError(f"{path}.weight is {values.shape}; {TAPS} values of each channel are needed")
        part._path, part.weight = path, source.ops.constant(np.pad(values.T, ((0, 1), (0, 0))))
        return part


class Convolution(Module):
    norm: Annotated[RmsNorm, at("conv_norm")]
    up: Annotated[ClampedLinear, at("conv_pw1")]
    taps: Annotated[ChannelTaps, at("conv_dw")]
    inner_norm: Annotated[RmsNorm, at("norm_conv")]
    down: Annotated[ClampedLinear, at("conv_pw2")]

    def check(self, width: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        for norm in (self.norm, self.inner_norm):
            norm.check(width)
        self.up.check(width, 2 * width)
        self.down.check(width, width)
        if self.taps.weight.width != width:
            raise ModelError(f"{self.taps.tensor('weight')} is of {self.taps.weight.width} channels, not {width}")

    def __call__(self, x: Array) -> Array:
        ops, both = x.ops, self.up(self.norm(x, EPS))
        inner = ops.glu(both[:, x.width :], both[:, : x.width], "sigmoid")
        row = np.arange(most(x.shape[0]))[:, None] - np.arange(TAPS - 1, -1, -1)
        rows, taps = np.maximum(0, row), np.where(row < 0, TAPS, np.arange(TAPS))
        each = [ops.constant(places.reshape(-1).astype(np.int32)) for places in (rows, taps)]
        mixed = float(TAPS) * ops.mean_rows(ops.take(inner, each[0]) * ops.take(self.taps.weight, each[1]), TAPS)
        return x + self.down(ops.activate(self.inner_norm(mixed, EPS), "silu"))


class Layer(Module):
    first: Annotated[Ffn, at("")]
    attention: Annotated[DistanceAttention, at("")]
    convolution: Annotated[Convolution, at("")]
    second: Annotated[SecondFfn, at("")]
    norm: Annotated[RmsNorm, at("ln2")]

    def __call__(self, x: Array, sight: Sight, heads: Heads) -> Array:
        x = self.convolution(self.attention(self.first(x), sight, heads))
        return self.norm(self.second(x), EPS)


class Weights(Module):
    halving: Annotated[list[Halving], at("a.conv1d")]
    input_projection: Annotated[Linear, at("a.input_projection")]
    blk: Annotated[list[Layer], at("a.blk")]
    out: Annotated[Linear, at("a.pre_encode.out")]
    projection: Annotated[Linear, at("mm.a.input_projection")]

    def check(self, heads: Heads, bands: int, inner: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        width, channels = heads.query * heads.width, 1
        for part in self.halving:
            channels, bands = part.check(channels), -(-bands // 2)
        self.input_projection.check(channels * bands, width)
        for layer in self.blk:
            layer.first.check(width, inner)
            layer.attention.check(heads)
            layer.convolution.check(width)
            layer.second.check(width, inner)
            layer.norm.check(width)
        self.out.check(width, self.out.outputs)
        self.projection.check(self.out.outputs, outputs)


@dataclass(frozen=True, eq=False)
class Gemma4Audio:
    ops: Ops
    weights: Weights
    heads: Heads
    bands: int
    marker: ClassVar[str] = "<|audio|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Gemma4Audio:
        names = ("embedding_length", "attention.head_count", "block_count", "feed_forward_length", "projection_dim")
        width, count, layers, inner, outputs = (positive_int(file, f"clip.audio.{name}") for name in names)
        if width % count:
            raise ModelError(f"{file.path}: clip.audio.attention.head_count is {count}, of {width} values")
        weights, bands = Weights.read(source), bands_of(file)
        heads = Heads(count, count, width // count, (width // count) ** -0.5 / math.log(2), CAP)
        if len(weights.blk) != layers or len(weights.halving) != 2:
            held = f"{len(weights.blk)} layers and {len(weights.halving)} of a.conv1d"
            raise ModelError(f"{file.path} holds {held}, not {layers} and 2", hint="the file is incomplete")
        weights.check(heads, bands, inner, outputs)
        return cls(source.ops, weights, heads, bands)

    @property
    def width(self) -> int:
        return self.weights.projection.outputs

    def layout(self, sound: Waveform) -> Patches:
        spans = [self._span(sound, first) for first in range(0, len(sound.samples), WINDOW)]
        return Patches(("<|audio>", *spans, "<audio|>"), sound.notes)

    def _span(self, sound: Waveform, first: int) -> MediaSpan:
        """The window that begins with this sample."""
        heard = sound.samples[first : first + WINDOW]
        shape = (whole_frames(len(heard)), self.bands)
        return sound_span(
            sound, "gemma4", self.bands, first, rows=-(-shape[0] // 4), shape=shape,
            make=lambda: htk_log_mel(heard, self.bands),
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        """One by one: the keys of a window take a lot of memory."""
        return self.ops.constant(np.concatenate([self._window(frames).numpy() for frames in features]))

    def _window(self, frames: Floats) -> Array:
        ops, w, size = self.ops, self.weights, frames.shape
        x = ops.constant(np.ascontiguousarray(frames).reshape(-1, 1))
        for part in w.halving:
            x, size = ops.activate(part.norm(part.conv.halve(x, size), EPS), "relu"), half(size)
        x = w.input_projection(ops.fold(x, size[1]))
        sight = Sight.of(ops, size[0], x.width)
        for layer in w.blk:
            x = layer(x, sight, self.heads)
        return w.projection(ops.rms_norm(w.out(x), None, EPS))


def _check(settings: Settings) -> None:
    told = {
        "attention_chunk_size": SEEN, "attention_context_left": SEEN + 1, "attention_context_right": 0,
        "attention_logit_cap": CAP, "residual_weight": 0.5, "conv_kernel_size": TAPS, "hidden_act": "silu",
    }  # fmt: skip
    expect(settings, {f"audio_config.{name}": value for name, value in told.items()})


def _bands(settings: Settings) -> int:
    """Of a frame: as many as the first convolution has channels."""
    channels = settings.get("audio_config.subsampling_conv_channels", "ints", [128, 32])
    assert isinstance(channels, list)
    return int(channels[0])


def _softplus(values: Floats, settings: Settings) -> Floats:
    return np.logaddexp(values, np.float32(0))


def _flat(values: Floats, settings: Settings) -> Floats:
    return values.reshape(len(values), -1)


def _flat_shape(shape: Shape, settings: Settings) -> Shape:
    return (shape[0], math.prod(shape[1:]))


_TOWER, _LAYER, _BLOCK = "audio_tower", "audio_tower.layers.{n}", "a.blk.{n}"
_NORMS = {
    "feed_forward1.pre_layer_norm": "ffn_norm", "feed_forward1.post_layer_norm": "ffn_post_norm",
    "norm_pre_attn": "attn_pre_norm", "norm_post_attn": "attn_post_norm", "lconv1d.pre_layer_norm": "conv_norm",
    "lconv1d.conv_norm": "norm_conv", "feed_forward2.pre_layer_norm": "ffn_norm_1",
    "feed_forward2.post_layer_norm": "ffn_post_norm_1", "norm_out": "ln2",
}  # fmt: skip
_MATRICES = {
    "feed_forward1.ffw_layer_1": "ffn_up", "feed_forward1.ffw_layer_2": "ffn_down", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.post": "attn_out",
    "lconv1d.linear_start": "conv_pw1", "lconv1d.linear_end": "conv_pw2", "feed_forward2.ffw_layer_1": "ffn_up_1",
    "feed_forward2.ffw_layer_2": "ffn_down_1",
}  # fmt: skip
_BOUNDS = ("input_min", "input_max", "output_min", "output_max")
_SUBSAMPLE = f"{_TOWER}.subsample_conv_projection"
AUDIO_ENCODERS = {"gemma4a": Gemma4Audio.load}
RULES = (
    Rules(
        part="audio",
        architecture="gemma4a",
        classes=("Gemma4ForConditionalGeneration",),
        when=lambda config: isinstance(config.get("audio_config"), Mapping),
        keys=(
            *audio_keys("gemma4a", {
                "embedding_length": ("hidden_size", 1024), "block_count": ("num_hidden_layers", 12),
                "attention.head_count": ("num_attention_heads", 8),
            }, eps=EPS),
            Key("clip.audio.feed_forward_length", lambda s: 4 * s.number("audio_config.hidden_size", 1024)),
            Key("clip.audio.num_mel_bins", _bands),
            Key("clip.audio.projection_dim", "text_config.hidden_size", "int", 2304),
        ),
        tensors=(
            *(Tensor(f"{_SUBSAMPLE}.layer{n}.conv.weight", f"a.conv1d.{n}.weight", type="F32") for n in (0, 1)),
            *(Tensor(f"{_SUBSAMPLE}.layer{n}.norm.weight", f"a.conv1d.{n}.norm.weight") for n in (0, 1)),
            Tensor(f"{_SUBSAMPLE}.input_proj_linear", "a.input_projection"),
            *(Tensor(f"{_LAYER}.{theirs}", f"{_BLOCK}.{ours}") for theirs, ours in _NORMS.items()),
            *(Tensor(f"{_LAYER}.{theirs}.linear", f"{_BLOCK}.{ours}") for theirs, ours in _MATRICES.items()),
            *(Tensor(f"{_LAYER}.{theirs}.{bound}", f"{_BLOCK}.{ours}.{bound}")
              for theirs, ours in _MATRICES.items() for bound in _BOUNDS),
            Tensor(f"{_LAYER}.self_attn.relative_k_proj", f"{_BLOCK}.attn_k_rel"),
            Tensor(f"{_LAYER}.self_attn.per_dim_scale", f"{_BLOCK}.per_dim_scale.weight", _softplus),
            Tensor(
                f"{_LAYER}.lconv1d.depthwise_conv1d.weight", f"{_BLOCK}.conv_dw.weight", _flat, _flat_shape, type="F32"
            ),
            Tensor(f"{_TOWER}.output_proj", "a.pre_encode.out"),
            Tensor("embed_audio.embedding_projection", "mm.a.input_projection"),
        ),
        check=_check,
    ),
)  # fmt: skip
