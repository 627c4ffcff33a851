"""Qwen3-ASR: an encoder of speech that hears chunks of a second, each a plane of its own, and a projector.

Three convolutions halve a chunk in time and in pitch. The layers see windows of 8 seconds; places count from the
beginning of a chunk. A sound of less than half a second gets silence behind it.

GGUF: clip.audio.projector_type = "qwen3a". The text part is a file of its own: Qwen 3, or Qwen3-VL in llama.cpp's
files, whose three axes are one for sound. llama.cpp hears the last chunk to its end, silence and all. Oracle:
transformers' Qwen3ASRForConditionalGeneration with Qwen3ASRFeatureExtractor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys, speech_layers
from opsin.gguf.rules import ComputedTensor, Key, Rules, Settings, Shape, Tensor
from opsin.gguf.vision_rules import expect
from opsin.media.mel import HOP, whole_log_mel
from opsin.media.sound import Waveform
from opsin.models.qwen3 import RULES as TEXT
from opsin.nn.convolution import HalvingConv, half
from opsin.nn.hearing import bands_of, hearing_shape
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import LayerNorm, Linear
from opsin.nn.pictures import Shared
from opsin.nn.sounds import sound_span
from opsin.nn.vit import VitBlock, VitShape, attention_spans
from opsin.nn.waves import waves
from opsin.nn.writing import Dictation
from opsin.ops import Array, Ops
from opsin.spans import MediaSpan, Patches

CHUNK, WINDOW = 100, 800  # frames that the convolutions see at once, and the layers
_SHRUNK = 8  # frames that become a row, and bands likewise: three halves
_LEAST = 8000  # samples


class Weights(Module):
    conv1: Annotated[HalvingConv, at("a.conv2d.1")]
    conv2: Annotated[HalvingConv, at("a.conv2d.2")]
    conv3: Annotated[HalvingConv, at("a.conv2d.3")]
    conv_out: Annotated[Linear, at("a.conv_out")]
    blk: Annotated[list[VitBlock], at("a.blk")]
    post_ln: Annotated[LayerNorm, at("a.post_ln")]
    up: Annotated[Linear, at("mm.a.mlp.1")]
    down: Annotated[Linear, at("mm.a.mlp.2")]

    def check(self, shape: VitShape, bands: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something is of another size."""
        channels = 1
        for conv in (self.conv1, self.conv2, self.conv3):
            channels = conv.check_channels(channels)
        self.conv_out.check(channels * -(-bands // _SHRUNK), shape.width)
        for block in self.blk:
            block.check(shape)
        self.post_ln.check(shape.width)
        self.up.check(shape.width, self.down.inputs)
        self.down.check(self.up.outputs, outputs)


@dataclass(frozen=True, eq=False)
class Qwen3Audio:
    """`positions` [rows of a chunk, width]."""

    ops: Ops
    weights: Weights
    shape: VitShape
    bands: int
    positions: Floats
    marker: ClassVar[str] = "<|audio_start|><|audio_pad|><|audio_end|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Qwen3Audio:
        weights, shape, bands = Weights.read(source), hearing_shape(file), bands_of(file)
        table, rows = source.values("a.position_embd.weight"), _rows(CHUNK)
        if table.ndim != 2 or len(table) < rows or table.shape[1] != shape.width:
            raise ModelError(f"a.position_embd.weight is {table.shape}; {(rows, shape.width)} and more rows are needed")
        if len(weights.blk) != shape.layers:
            raise ModelError(f"{file.path} holds {len(weights.blk)} of its {shape.layers} layers that hear")
        weights.check(shape, bands, positive_int(file, "clip.audio.projection_dim"))
        return cls(source.ops, weights, shape, bands, table[:rows])

    @property
    def width(self) -> int:
        return self.weights.down.outputs

    def layout(self, sound: Waveform) -> Patches:
        samples = max(len(sound.samples), _LEAST)
        frames = samples // HOP
        firsts = range(0, frames, WINDOW)
        logs = Shared(lambda: whole_log_mel(_filled(sound.samples, samples), self.bands), len(firsts))
        spans = [self._span(sound, logs, first, min(WINDOW, frames - first)) for first in firsts]
        return Patches(("<|audio_start|>", *spans, "<|audio_end|>"), sound.notes)

    def _span(self, sound: Waveform, logs: Shared[Floats], first: int, frames: int) -> MediaSpan:
        return sound_span(
            sound, "qwen3asr", self.bands, first, rows=_rows(frames), shape=(frames, self.bands),
            make=lambda: logs.get()[first : first + frames],
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        windows, frames, bands = features.shape
        w, rows, ops = self.weights, _rows(frames), self.ops
        chunks = np.pad(features, ((0, 0), (0, -frames % CHUNK), (0, 0))).reshape(-1, CHUNK, bands)
        heard = np.stack([self._heard(chunk) for chunk in chunks])  # [chunks, rows, values]
        heard = heard.reshape(windows, -1, heard.shape[-1])[:, :rows].reshape(windows * rows, -1)
        places = np.tile(np.arange(rows) % len(self.positions), windows)
        x = w.conv_out(ops.constant(heard), ops.constant(self.positions[places]))
        spans = attention_spans(ops, [0, rows], windows)
        for block in w.blk:
            x = block(x, spans, None, self.shape)
        return w.down(w.up(w.post_ln(x, self.shape.eps), activation="gelu_erf"))

    def _heard(self, chunk: Floats) -> Floats:
        """What the convolutions make of a chunk [frames, bands]: [rows, channels * bands that are left]."""
        x, size = self.ops.constant(np.ascontiguousarray(chunk.T).reshape(-1, 1)), chunk.T.shape
        for conv in (self.weights.conv1, self.weights.conv2, self.weights.conv3):
            x, size = conv.halve(x, size, "gelu_erf"), half(size)
        made = x.numpy().astype(np.float32, copy=False).reshape(*size, -1)
        return made.transpose(1, 2, 0).reshape(size[1], -1)


def _rows(frames: int) -> int:
    """That so many frames become."""
    whole, rest = divmod(frames, CHUNK)
    return whole * -(-CHUNK // _SHRUNK) + -(-rest // _SHRUNK)


def _filled(samples: Floats, count: int) -> Floats:
    return np.pad(samples, (0, count - len(samples)))


def _check(settings: Settings) -> None:
    told = {"n_window": CHUNK // 2, "n_window_infer": WINDOW, "activation_function": "gelu", "scale_embedding": False}
    expect(settings, {f"audio_config.{name}": value for name, value in told.items()})


def _positions(settings: Settings) -> Floats:
    """Of the places of a chunk, which checkpoints do not hold."""
    return waves(_rows(CHUNK), settings.number("audio_config.d_model", 1024))


def _column(values: Floats, settings: Settings) -> Floats:
    return values[:, None, None]


def _column_shape(shape: Shape, settings: Settings) -> Shape:
    return (*shape, 1, 1)


_TOWER, _NAMES = "audio_tower", {"multi_modal_projector.linear_": "mm.a.mlp.", "audio_tower.proj": "mm.a.mlp."}
AUDIO_ENCODERS = {"qwen3a": Qwen3Audio.load}
_LANGUAGES = (
    "ar=Arabic cs=Czech da=Danish de=German el=Greek en=English es=Spanish fa=Persian fi=Finnish fil=Filipino "
    "fr=French hi=Hindi hu=Hungarian id=Indonesian it=Italian ja=Japanese ko=Korean mk=Macedonian ms=Malay nl=Dutch "
    "pl=Polish pt=Portuguese ro=Romanian ru=Russian sv=Swedish th=Thai tr=Turkish vi=Vietnamese yue=Cantonese "
    "zh=Chinese"
)
_ASKS = "<|im_start|>system\n{words}<|im_end|>\n<|im_start|>user\n{sound}<|im_end|>\n<|im_start|>assistant\n{language}"
DICTATIONS = {
    "qwen3a": Dictation(
        _ASKS, "language {name}<asr_text>", "<asr_text>", dict(pair.split("=") for pair in _LANGUAGES.split())
    )
}
RULES = (
    replace(TEXT[1], classes=(), types=("qwen3_asr_text",), judge=None),
    Rules(
        part="audio",
        architecture="qwen3a",
        classes=("Qwen3ASRForConditionalGeneration",),
        keys=(
            *audio_keys("qwen3a", {
                "embedding_length": ("d_model", 1024), "feed_forward_length": ("encoder_ffn_dim", 4096),
                "block_count": ("encoder_layers", 24), "attention.head_count": ("encoder_attention_heads", 16),
                "num_mel_bins": ("num_mel_bins", 128),
            }),
            Key("clip.audio.projection_dim", "text_config.hidden_size", "int", 2048),
        ),
        tensors=(
            *(Tensor(f"{_TOWER}.conv2d{n}.weight", f"a.conv2d.{n}.weight") for n in (1, 2, 3)),
            *(Tensor(f"{_TOWER}.conv2d{n}.bias", f"a.conv2d.{n}.bias", _column, _column_shape) for n in (1, 2, 3)),
            Tensor(f"{_TOWER}.conv_out", "a.conv_out"),
            *speech_layers(_TOWER),
            Tensor(f"{_TOWER}.ln_post", "a.post_ln"),
            *(Tensor(f"{theirs}{n}", f"{ours}{n}") for theirs, ours in _NAMES.items() for n in (1, 2)),
        ),
        made=(ComputedTensor("a.position_embd.weight", _positions),),
        check=_check,
    ),
)  # fmt: skip
