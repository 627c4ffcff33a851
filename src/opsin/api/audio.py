"""The part of a model that hears: known by its metadata at once, its weights read when the first sound comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Final

import numpy as np

from opsin.api.part_file import PartFile
from opsin.api.waiting import PictureBytes, keep_decoded
from opsin.config import available_threads
from opsin.engine.encoding import Turn
from opsin.errors import FieldError, RequestError
from opsin.gguf import File
from opsin.media.fetch import FetchRules
from opsin.media.fetch import fetch as fetch_bytes
from opsin.media.hearing import Heard, open_sound
from opsin.media.sound import RATE, Sound, SoundLimits, Waveform
from opsin.models import AudioEncoder, Decoder, find_dictation, load_audio_encoder
from opsin.ops.device import Device
from opsin.process import Home
from opsin.spans import Patches
from opsin.text import Tokenizer
from opsin.text.markers import strange_word

TALKED_ABOUT: Final = 3600.0  # seconds of a sound in a conversation; what is longer is transcribed


class Audio:
    """What stands in a prompt for a sound, and where its encoder comes from.

    Args:
        path: the file with the part for sound.
        file: this file, open. It stays open here until its weights are read.
        rules: what may be fetched.
        budgets: of sounds and pictures that wait for their encoders.

    Attributes:
        dictation: the prompt with which the model writes down what was said, where it was taught one.
    """

    def __init__(self, path: Path, file: File, rules: FetchRules, budgets: PictureBytes) -> None:
        self.path, self.rules, self.budgets = path, rules, budgets
        self.limits = SoundLimits(bytes=rules.bytes, seconds=TALKED_ABOUT)
        self._home, self._decoding = Home(), BoundedSemaphore(available_threads())
        self._part = PartFile(file.again(), load_audio_encoder)
        self.close, self._meta = self._part.close, self._part.meta
        self.dictation = find_dictation(file)

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self._meta.width

    @property
    def marker(self) -> str:
        """What the family's chat template writes for one sound."""
        return self._meta.marker

    def load(self, device: Device) -> Callable[[Turn], AudioEncoder]:
        """What reads the weights, once, see `engine.encoding`."""
        return self._part.load(device)

    def prepare(self, source: Heard | Patches, name: str | None = None) -> Patches:
        """What stands in a prompt for a sound. `name` is what errors call it. Raises DeviceError in a forked child."""
        self._home.check()
        if isinstance(source, Patches):
            return source
        held = source.source if isinstance(source, Sound) else source
        data = bytes(held) if isinstance(held, bytes | bytearray | memoryview) else None
        with self._decoding:
            sound = open_sound(source if data is None else data, self.limits, name=name)
        try:
            patches = self._layout(sound)
        except RequestError as error:
            raise FieldError(name or "the sound", error.message, hint=error.hint) from error
        if data is None:
            return patches
        again = partial(self._again, name)
        return keep_decoded(patches, data, again, self.budgets, sound.samples.nbytes)

    def _again(self, name: str | None, data: bytes) -> Patches:
        return self._layout(open_sound(data, self.limits, name=name))

    def _layout(self, sound: Waveform) -> Patches:
        patches = self._meta.layout(sound)
        assert all(span.features is None or len(span.features.shape) == 2 for span in patches.spans)
        return replace(patches, kind="audio", seconds=sound.seconds)

    def fetch(self, url: str, name: str) -> Patches:
        """A sound behind a URL, by the rules."""
        return self.prepare(fetch_bytes(url, self.rules, name=name), name)

    def find_misfit(self, decoder: Decoder, tokenizer: Tokenizer) -> str | None:
        """Why this part does not belong to a text model, if it does not. Names no file: strangers read it, too."""
        if self.width != decoder.media_width:
            return f"its sounds have embeddings of {self.width} values, the model takes {decoder.media_width}"
        patches = self._meta.layout(Waveform(np.zeros(RATE, np.float32)))
        strange = strange_word(patches.markers, tokenizer)
        return f"it writes {strange!r} around sounds, which is no token of the model" if strange else None
