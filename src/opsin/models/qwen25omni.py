"""Qwen2.5-Omni: what writes of a model that hears, sees and speaks: Qwen2.5-VL's tower and text, Qwen2-Audio's encoder.

Sound is heard in windows of two seconds, each by itself: convolutions see nothing beyond it, places count from its
beginning. Hardly anything (up to 20 ms) gets silence behind it. Sound and films share an axis of time, of 25
positions a second (TMRoPE): a film's own sound stands between its moments, two seconds of these and two of it by turns.
What speaks is left out.

GGUF: clip.projector_type = "qwen2.5o" for both parts, in one file; the text part is a file of its own. llama.cpp hears
half a minute as one window, to its end, silence and all, and writes Qwen2.5-VL's tokens around pictures, which this
model does not have. Where moments are further apart than a turn, transformers lets single rows of them come earlier.
Oracle: transformers' Qwen2_5OmniThinkerForConditionalGeneration with Qwen2_5OmniProcessor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import ComputedTensor, Key, Settings, Tensor, constant
from opsin.gguf.vision_rules import blocks, expect
from opsin.media.film import Film
from opsin.media.mel import HOP, log_mel, window
from opsin.media.picture import Picture
from opsin.media.sound import Waveform
from opsin.models.qwen2audio import LEAST
from opsin.models.qwen2audio import RULES as HEARING
from opsin.models.qwen2audio import Qwen2Audio as OlderAudio
from opsin.models.qwen2vl import RULES as SEEING
from opsin.models.qwen2vl import Qwen2VlVision as OlderVision
from opsin.models.qwen2vl import load_second
from opsin.nn.films import Parts, on_time_axis
from opsin.nn.module import Reader
from opsin.nn.pictures import Shared
from opsin.nn.sounds import sound_span
from opsin.nn.waves import waves
from opsin.ops import Array
from opsin.spans import Canvas, MediaSpan, Patches

WINDOW = 200  # frames
PACE = 25  # positions a second, of which a row of sound takes one
TURN = 2 * PACE  # positions of sound between moments


class OmniAudio(OlderAudio):
    """The encoder of its predecessor, by windows."""

    @classmethod
    def load(cls, file: File, source: Reader) -> OmniAudio:
        found = cls(**vars(OlderAudio.load(file, source)))
        if found.tower.frames < WINDOW:
            raise ModelError(f"a.position_embd.weight has {found.tower.rows} rows", hint="the file is damaged")
        return found

    def layout(self, sound: Waveform) -> Patches:
        frames = max(LEAST, -(-len(sound.samples) // HOP))
        firsts = range(0, frames - LEAST + 1, WINDOW)
        logs = Shared(lambda: log_mel(sound.samples, self.tower.bands), len(firsts))
        spans = [self._window(sound, logs, first, min(WINDOW, frames - first)) for first in firsts]
        return Patches(("<|audio_bos|>", *spans, "<|audio_eos|>"), sound.notes)

    def _window(self, sound: Waveform, logs: Shared[Floats], first: int, frames: int) -> MediaSpan:
        return sound_span(
            sound, "qwen25omni", self.tower.bands, first, rows=(frames + 1) // 4, shape=(frames, self.tower.bands),
            make=lambda: window(logs.get(), first, frames),
        )  # fmt: skip

    def encode(self, features: Floats) -> Array:
        return self.hear(features, (features.shape[1] + 1) // 2)


class OmniVision(OlderVision):
    """The tower of Qwen2.5-VL."""

    marker: ClassVar[str] = "<|vision_bos|><|IMAGE|><|vision_eos|>"

    @classmethod
    def read(cls, file: File, source: Reader) -> OmniVision:
        return cls(**{**vars(load_second(file, source)), "pace": float(PACE)})

    def layout(self, picture: Picture) -> Patches:
        patches = super().layout(picture)
        return replace(patches, parts=("<|vision_bos|>", *patches.parts, "<|vision_eos|>"))


def lay_out_film(tower: OmniVision, film: Film) -> Parts:
    """A film on the axis of time, with its sound where that is heard."""
    (patches,) = on_time_axis(tower, film)
    assert isinstance(patches, Patches)
    parts, sound = patches.parts, film.sound and film.sound()
    if sound is not None:
        parts = ("<|audio_bos|>", *by_turns(patches.spans, sound.spans), "<|audio_eos|>")
    return (replace(patches, parts=("<|vision_bos|>", *parts, "<|vision_eos|>"), sound=sound),)


def by_turns(moments: Sequence[MediaSpan], windows: Sequence[MediaSpan]) -> list[MediaSpan]:
    """Moments and windows of sound in the order in which they come, all placed from one beginning on.

    Two markers stand at one position before them, and two behind the last, whatever the others take.
    """
    sounds = (replace(window, time=TURN * number) for number, window in enumerate(windows))
    spans = sorted([*moments, *sounds], key=lambda span: ((span.time or 0) // TURN, span.grid is None))
    last, time = spans[-1], spans[-1].time or 0
    end = time + last.rows if last.grid is None else max(time + 1, *last.grid)
    behind = tuple((last.rows + row, end, end, end) for row in range(2))
    markers = {0: ((-1, -1, -1, -1),), len(spans) - 1: behind}
    placed = [
        replace(span, positions=0, canvas=Canvas(1, (0, 0), span.grid or (0, 0), markers.get(number, ())))
        for number, span in enumerate(spans)
    ]
    return [*placed[:-1], replace(placed[-1], positions=end - 2)]


def _check(settings: Settings) -> None:
    told = {"n_window": WINDOW // 2, "activation_function": "gelu", "scale_embedding": False}
    times = {"seconds_per_chunk": TURN // PACE, "position_id_per_seconds": PACE}
    expect(settings, {f"audio_config.{name}": value for name, value in told.items()} | times)


def _positions(settings: Settings) -> Floats:
    """Of places, which checkpoints do not hold; as many as llama.cpp writes."""
    return waves(1500, settings.number("audio_config.d_model", 1280))


_CLASSES = (
    "Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniModel",
    "Qwen2OmniNaViTThinkerForConditionalGeneration",
)  # fmt: skip
_TEXT, _, _SEEN = SEEING
_PROJECTOR = constant("clip.projector_type", "qwen2.5o", "str")
ENCODERS = {"qwen2.5o": OmniVision.read}
AUDIO_ENCODERS = {"qwen2.5o": OmniAudio.load}
FILMS = {"qwen2.5o": lay_out_film}
RULES = (
    replace(_TEXT, classes=_CLASSES, types=("qwen2_5_omni_text",), dropped=("talker.*", "token2wav.*")),
    replace(
        _SEEN,
        architecture="qwen2.5o",
        classes=_CLASSES,
        keys=(*_SEEN.keys, _PROJECTOR, constant("clip.vision.tokens_per_second", float(PACE), "float")),
        tensors=(*_SEEN.tensors, *blocks("visual.blocks", {f"attn.{name}": f"attn_{name}" for name in "qkv"})),
    ),
    replace(
        HEARING[0],
        architecture="qwen2.5o",
        classes=_CLASSES,
        keys=(
            *(key for key in HEARING[0].keys if key.name != "clip.use_gelu"),  # it would speak of pictures
            _PROJECTOR,
            Key("clip.audio.projection_dim", "audio_config.output_dim", "int", 3584),
        ),
        tensors=(
            *HEARING[0].tensors, Tensor("audio_tower.ln_post", "a.post_ln"), Tensor("audio_tower.proj", "mm.a.fc"),
        ),
        made=(ComputedTensor("a.position_embd.weight", _positions),),
        dropped=("audio_tower.audio_bos_eos_token",),
        check=_check,
    ),
)  # fmt: skip
