"""Ultravox: an encoder of speech, whose states meet eight by eight in a gated projector.

A sound is as long as it is: the tower hears windows of 30 seconds, the last one shorter. No token stands around it.

GGUF: clip.projector_type = "ultravox", as llama.cpp writes it. The text part is a file of its own. llama.cpp
hears every window to its end, silence and all (187 rows); here it is as the makers' own code does it. Oracle: that
code, around the encoder of transformers on which it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.media.mel import HOP, whole_log_mel
from opsin.media.sound import Waveform
from opsin.nn.hearing import HearingTower, filled
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear, RmsNorm
from opsin.nn.pictures import Shared
from opsin.nn.sounds import sound_span
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

_EPS = 1e-6  # of the projector's norms; the file's key is that of the tower


class Projector(Module):
    """Two matrices; the first gives two halves, of which the second is the gate."""

    norm_pre: RmsNorm
    up: Annotated[Linear, at("mlp.1")]
    norm_mid: RmsNorm
    down: Annotated[Linear, at("mlp.2")]

    def check(self, inputs: int, outputs: int) -> None:
        """Raises ModelError, naming the tensor, where something does not fit."""
        self.norm_pre.check(inputs)
        self.up.check(inputs, 2 * self.down.inputs)
        self.norm_mid.check(self.down.inputs)
        self.down.check(self.down.inputs, outputs)

    def __call__(self, x: Array) -> Array:
        both, half = self.up(self.norm_pre(x, _EPS)), self.down.inputs
        gated = x.ops.glu(both[:, half:], both[:, :half], "silu")
        return self.down(self.norm_mid(gated, _EPS))


@dataclass(frozen=True, eq=False)
class UltravoxAudio:
    """`stacked` states become a row."""

    tower: HearingTower
    projector: Projector
    stacked: int
    marker: ClassVar[str] = "<|audio|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> UltravoxAudio:
        tower, stacked = HearingTower.load(file, source), positive_int(file, "clip.audio.projector.stack_factor")
        if stacked > tower.rows:
            raise ModelError(f"{file.path}: clip.audio.projector.stack_factor is {stacked}", hint="the file is damaged")
        projector = Projector.read(source, "mm.a")
        projector.check(tower.shape.width * stacked, positive_int(file, "clip.audio.projection_dim"))
        return cls(tower, projector, stacked)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, sound: Waveform) -> Patches:
        frames = max(2, -(-len(sound.samples) // HOP))
        firsts = range(0, frames, self.tower.frames)
        logs = Shared(lambda: whole_log_mel(_padded(sound.samples, frames), self.tower.bands), len(firsts))
        return Patches(tuple(self._span(sound, logs, first, frames) for first in firsts), sound.notes)

    def _span(self, sound: Waveform, logs: Shared[Floats], first: int, frames: int) -> MediaSpan:
        """A window. Those after the first one are filled up: an odd one has a frame of nothing behind it."""
        count = min(self.tower.frames, frames - first)
        more = count % 2 if first else 0
        return sound_span(
            sound, "ultravox", self.tower.bands, first, rows=-(-count // (2 * self.stacked)),
            shape=(count + more, self.tower.bands),
            make=lambda: np.pad(logs.get()[first : first + count], ((0, more), (0, 0))),
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        x = self.tower.encode(features)
        return self.projector(x.ops.fold(filled(x, len(features), self.stacked), self.stacked))


def _padded(samples: Floats, frames: int) -> Floats:
    return np.pad(samples, (0, frames * HOP - len(samples)))


AUDIO_ENCODERS = {"ultravox": UltravoxAudio.load}
