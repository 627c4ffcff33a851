"""Voxtral: an encoder of speech, whose states meet four by four in two matrices.

A sound is filled up with silence to whole windows of 30 seconds, all of which is heard.

GGUF: clip.projector_type = "voxtral". The text part is a file of its own. llama.cpp takes means of two states before
they meet, which halves the rows (its issue 25496); here it is as the makers have it. Oracle: transformers'
VoxtralEncoder with its projector and VoxtralProcessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.audio_rules import audio_keys, speech_tower
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.media.mel import HOP, log_mel, window
from opsin.media.sound import Waveform
from opsin.nn.hearing import HearingTower
from opsin.nn.keys import positive_int
from opsin.nn.module import Module, Reader, at
from opsin.nn.parts import Linear
from opsin.nn.pictures import Shared
from opsin.nn.sounds import sound_span
from opsin.nn.writing import Dictation
from opsin.ops import Array
from opsin.spans import Patches


class Projector(Module):
    up: Annotated[Linear, at("mlp.1")]
    down: Annotated[Linear, at("mlp.2")]


@dataclass(frozen=True, eq=False)
class VoxtralAudio:
    """`stacked` states become a row."""

    tower: HearingTower
    projector: Projector
    stacked: int
    marker: ClassVar[str] = "[BEGIN_AUDIO][AUDIO]"

    @classmethod
    def load(cls, file: File, source: Reader) -> VoxtralAudio:
        tower, stacked = HearingTower.load(file, source), positive_int(file, "clip.audio.projector.stack_factor", 4)
        projector, width = Projector.read(source, "mm.a"), positive_int(file, "clip.audio.projection_dim")
        if tower.rows % stacked:
            told = f"clip.audio.projector.stack_factor is {stacked}, of a.position_embd.weight's {tower.rows} rows"
            raise ModelError(f"{file.path}: {told}", hint="the file is damaged")
        projector.up.check(tower.shape.width * stacked, projector.down.inputs)
        projector.down.check(projector.up.outputs, width)
        return cls(tower, projector, stacked)

    @property
    def width(self) -> int:
        return self.projector.down.outputs

    def layout(self, sound: Waveform) -> Patches:
        frames, bands = self.tower.frames, self.tower.bands
        firsts = range(0, -(-len(sound.samples) // HOP), frames)
        logs = Shared(lambda: log_mel(sound.samples, bands), len(firsts))
        spans = [
            sound_span(
                sound, "voxtral", bands, first, rows=self.tower.rows // self.stacked, shape=(frames, bands),
                make=lambda first=first: window(logs.get(), first, frames),  # type: ignore[misc]
            )
            for first in firsts
        ]  # fmt: skip
        return Patches(("[BEGIN_AUDIO]", *spans), sound.notes)

    def encode(self, features: Floats) -> Array:
        x = self.tower.encode(features)
        return self.projector.down(self.projector.up(x.ops.fold(x, self.stacked), activation="gelu_erf"))


def _stacked(settings: Settings) -> int:
    """The projector takes as many values as a layer has in its middle."""
    ends = ("audio_config.intermediate_size", 5120), ("audio_config.hidden_size", 1280)
    middle, width = (settings.number(path, usual) for path, usual in ends)
    return middle // width


AUDIO_ENCODERS = {"voxtral": VoxtralAudio.load}
DICTATIONS = {  # as mistral-common's encode_transcription
    "voxtral": Dictation("[INST]{sound}[/INST]{language}[TRANSCRIBE]", "lang:{code}", "[TRANSCRIBE]")
}
RULES = (
    Rules(
        part="audio",
        architecture="voxtral",
        classes=("VoxtralForConditionalGeneration",),
        keys=(
            *audio_keys("voxtral", {
                "embedding_length": ("hidden_size", 1280), "feed_forward_length": ("intermediate_size", 5120),
                "block_count": ("num_hidden_layers", 32), "attention.head_count": ("num_attention_heads", 20),
                "num_mel_bins": ("num_mel_bins", 128),
            }),
            Key("clip.audio.projection_dim", "text_config.hidden_size", "int", 3072),
            Key("clip.audio.projector.stack_factor", _stacked),
        ),
        tensors=(
            *speech_tower("audio_tower"),
            Tensor("multi_modal_projector.linear_1", "mm.a.mlp.1"),
            Tensor("multi_modal_projector.linear_2", "mm.a.mlp.2"),
        ),
    ),
)  # fmt: skip
