"""Gemma 4: sound through a conformer, whose rows of 40 ms see themselves and the eleven before.

Windows of 30 seconds are heard one by one; less than a frame gets silence behind it.

GGUF: clip.audio.projector_type = "gemma4a", as llama.cpp writes it. The norms' key is not asked: files say another
number than models have. llama.cpp takes the larger of a band's loudness and its floor, where the makers take the sum.
Oracle: transformers' Gemma4ForConditionalGeneration with Gemma4AudioFeatureExtractor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys
from opsin.gguf.rules import Key, Rules, Settings, Tensor, flat, flat_shape
from opsin.gguf.vision_rules import expect
from opsin.media.htk_mel import htk_log_mel, whole_frames
from opsin.media.sound import RATE, Waveform
from opsin.nn.attention import Heads
from opsin.nn.conformer import EPS, SEEN, TAPS, ConformerLayer, Sight
from opsin.nn.convolution import HalvingConv, half
from opsin.nn.hearing import bands_of
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, PlainLayerNorm
from opsin.nn.sounds import sound_span
from opsin.ops import Array, Ops
from opsin.spans import MediaSpan, Patches

CAP = 50.0  # of scores
WINDOW = 30 * RATE  # samples


class Halving(Module):
    conv: Annotated[HalvingConv, at("")]
    norm: PlainLayerNorm

    def check(self, channels: int) -> int:
        """Channels that it makes of so many. Raises ModelError, naming the tensor, where something does not fit."""
        made = self.conv.check_channels(channels)
        self.norm.check(made)
        return made


class Weights(Module):
    halving: Annotated[list[Halving], at("a.conv1d")]
    input_projection: Annotated[Linear, at("a.input_projection")]
    blk: Annotated[list[ConformerLayer], at("a.blk")]
    out: Annotated[Linear, at("a.pre_encode.out")]
    projection: Annotated[Linear, at("mm.a.input_projection")]

    def check(self, heads: Heads, bands: int, inner: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        width, channels = heads.query * heads.width, 1
        for part in self.halving:
            channels, bands = part.check(channels), -(-bands // 2)
        self.input_projection.check(channels * bands, width)
        for layer in self.blk:
            layer.check(heads, inner)
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
                f"{_LAYER}.lconv1d.depthwise_conv1d.weight", f"{_BLOCK}.conv_dw.weight", flat, flat_shape, type="F32"
            ),
            Tensor(f"{_TOWER}.output_proj", "a.pre_encode.out"),
            Tensor("embed_audio.embedding_projection", "mm.a.input_projection"),
        ),
        check=_check,
    ),
)  # fmt: skip
