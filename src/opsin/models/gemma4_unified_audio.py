"""Gemma 4 12B: 40 ms of sound become a row at once, normed and multiplied, without a tower.

GGUF: clip.audio.projector_type = "gemma4ua". Oracle: transformers' Gemma4UnifiedForConditionalGeneration with
Gemma4UnifiedAudioFeatureExtractor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys
from opsin.gguf.rules import Key, Rules, Tensor, constant
from opsin.media.sound import Waveform
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader
from opsin.nn.parts import Linear
from opsin.nn.sounds import sound_span
from opsin.ops import Array, Ops
from opsin.spans import MediaSpan, Patches

EPS = 1e-6
_ROWS = 750  # of a span


class Projector(Module):
    input_projection: Linear


@dataclass(frozen=True, eq=False)
class SampleAudio:
    ops: Ops
    projector: Projector
    marker: ClassVar[str] = "<|audio|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> SampleAudio:
        projector, names = Projector.read(source, "mm.a"), ("embedding_length", "projection_dim")
        inputs, outputs = (positive_int(file, f"clip.audio.{name}") for name in names)
        projector.input_projection.check(inputs, outputs)
        return cls(source.ops, projector)

    @property
    def width(self) -> int:
        return self.projector.input_projection.outputs

    def layout(self, sound: Waveform) -> Patches:
        step = _ROWS * self.projector.input_projection.inputs
        spans = [self._span(sound, first, step) for first in range(0, len(sound.samples), step)]
        return Patches(("<|audio>", *spans, "<audio|>"), sound.notes)

    def _span(self, sound: Waveform, first: int, step: int) -> MediaSpan:
        heard, row = sound.samples[first : first + step], self.projector.input_projection.inputs
        rows = -(-len(heard) // row)
        return sound_span(
            sound, "samples", row, first, rows=rows, shape=(rows, row),
            make=lambda: np.pad(heard, (0, rows * row - len(heard))).reshape(rows, row),
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        x = self.ops.constant(features.reshape(-1, features.shape[2]))
        return self.projector.input_projection(self.ops.rms_norm(x, None, EPS))


AUDIO_ENCODERS = {"gemma4ua": SampleAudio.load}
RULES = (
    Rules(
        part="audio",
        architecture="gemma4ua",
        classes=("Gemma4UnifiedForConditionalGeneration",),
        when=lambda config: isinstance(config.get("audio_config"), Mapping),
        keys=(
            *audio_keys("gemma4ua", {"embedding_length": ("audio_embed_dim", 640)}, eps=EPS),
            Key("clip.audio.projection_dim", "text_config.hidden_size", "int", 2304),
            *(constant(f"clip.audio.{name}", 0, "int")  # says nothing, and readers want it
              for name in ("block_count", "feed_forward_length", "attention.head_count")),
            constant("clip.audio.num_mel_bins", 128, "int"),  # likewise
        ),
        tensors=(Tensor("embed_audio.embedding_projection", "mm.a.input_projection"),),
    ),
)  # fmt: skip
