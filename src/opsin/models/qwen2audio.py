"""Qwen2-Audio: an encoder of speech, of whose states the means of two become a row, through one matrix.

Each window of 30 seconds is heard as a sound of its own; what lies behind a sound is silence that nobody looks at.
Hardly anything (less than 40 ms) gets silence behind it.

GGUF: clip.projector_type = "qwen2a". The text part is a file of its own. llama.cpp hears windows to their ends, silence
and all. Oracle: transformers' Qwen2AudioEncoder with its projector and Qwen2AudioProcessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys, speech_tower
from opsin.gguf.rules import Key, Rules, Tensor
from opsin.media.mel import HOP, log_mel, window
from opsin.media.sound import Waveform
from opsin.nn.hearing import HearingTower, first_rows
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader
from opsin.nn.parts import Linear
from opsin.nn.sounds import sound_span
from opsin.ops import Array
from opsin.spans import MediaSpan, Patches

LEAST = 3  # frames that give a row


class Projector(Module):
    fc: Linear


@dataclass(frozen=True, eq=False)
class Qwen2Audio:
    """Frames of an odd number end with one more than is needed, for what the convolutions see behind the last row."""

    tower: HearingTower
    projector: Projector
    marker: ClassVar[str] = "<|audio_bos|><|AUDIO|><|audio_eos|>"

    @classmethod
    def load(cls, file: File, source: Reader) -> Qwen2Audio:
        tower, projector = HearingTower.load(file, source), Projector.read(source, "mm.a")
        projector.fc.check(tower.shape.width, positive_int(file, "clip.audio.projection_dim"))
        if tower.rows < 2 * LEAST:
            raise ModelError(f"a.position_embd.weight has {tower.rows} rows", hint="the file is damaged")
        return cls(tower, projector)

    @property
    def width(self) -> int:
        return self.projector.fc.outputs

    def layout(self, sound: Waveform) -> Patches:
        samples = self.tower.frames * HOP
        spans = [self._span(sound, first) for first in range(0, len(sound.samples), samples)]
        return Patches(("<|audio_bos|>", *spans, "<|audio_eos|>"), sound.notes)

    def _span(self, sound: Waveform, first: int) -> MediaSpan:
        """The window that begins with this sample."""
        heard = sound.samples[first : first + self.tower.frames * HOP]
        rows = (max(LEAST, -(-len(heard) // HOP)) + 1) // 2
        frames = min(2 * rows + 1, self.tower.frames)
        return sound_span(
            sound, "qwen2audio", self.tower.bands, first, rows=rows // 2, shape=(frames, self.tower.bands),
            make=lambda: window(log_mel(heard, self.tower.bands), 0, frames),
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        return self.hear(features, features.shape[1] // 2)

    def hear(self, features: Floats, rows: int) -> Array:
        """Frames [windows, frames, bands], of whose states the first `rows` of each window see each other."""
        windows = len(features)
        x = self.tower.run(first_rows(self.tower.embed(features), windows, rows), windows)
        means = x.ops.mean_rows(first_rows(x, windows, rows // 2 * 2), 2)
        return self.projector.fc(self.tower.weights.post_ln(means, self.tower.shape.eps))


AUDIO_ENCODERS = {"qwen2a": Qwen2Audio.load}
RULES = (
    Rules(
        part="audio",
        architecture="qwen2a",
        classes=("Qwen2AudioForConditionalGeneration",),
        keys=(
            *audio_keys("qwen2a", {
                "embedding_length": ("d_model", 1280), "feed_forward_length": ("encoder_ffn_dim", 5120),
                "block_count": ("encoder_layers", 32), "attention.head_count": ("encoder_attention_heads", 20),
                "num_mel_bins": ("num_mel_bins", 128),
            }),
            Key("clip.audio.projection_dim", "text_config.hidden_size", "int", 4096),
        ),
        tensors=(*speech_tower("audio_tower"), Tensor("multi_modal_projector.linear", "mm.a.fc")),
    ),
)  # fmt: skip
