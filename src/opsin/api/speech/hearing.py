"""The part of a model that hears: known by its metadata at once, its weights read when the first sound comes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from opsin.api.part_file import PartFile
from opsin.arrays import Floats
from opsin.engine.encoding import Turn
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.media.mel import log_mel, window
from opsin.media.sound import RATE, Waveform
from opsin.models import Decoder, SoundEncoder, load_hearer
from opsin.nn.writing import Writing
from opsin.ops.device import Device
from opsin.process import Home
from opsin.spans import MediaSpan


class Hearing:
    """What stands in a prompt for sound, and where its encoder comes from.

    Args:
        file: holds the part; it stays open until its weights are read.
    """

    def __init__(self, file: File) -> None:
        self.home = Home()
        self._part = PartFile(file.again(), load_hearer, told=file)
        self.close, self._meta = self._part.close, self._part.meta

    @property
    def frames(self) -> int:
        """Of log-mel, that are heard at once."""
        return self._meta.frames

    @property
    def writing(self) -> Writing:
        """What its file says of writing down what was said."""
        return self._meta.writing

    @property
    def memory_rows(self) -> int:
        """Of a window, beside the text."""
        return self._meta.span(np.zeros((self.frames, self._meta.bands), np.float32)).memory

    def check(self, decoder: Decoder) -> None:
        """Raises ModelError where it does not belong to a decoder."""
        if self._meta.width != decoder.media_width:
            told = f"what it hears has {self._meta.width} values, the model takes {decoder.media_width}"
            raise ModelError(f"{self._part.file.path}: {told}", hint="the file is damaged")

    def load_encoders(self, device: Device) -> Callable[[Turn], SoundEncoder]:
        """What reads the weights, once, see `engine.encoding`."""
        return self._part.load(device)

    def logs(self, sound: Waveform) -> Floats:
        """Log-mel frames [frames, bands] of all of it."""
        assert sound.rate == RATE
        return log_mel(sound.samples, self._meta.bands)

    def span(self, logs: Floats, first: int) -> MediaSpan:
        """What stands in a prompt for the window of frames that begins with this one."""
        return self._meta.span(window(logs, first, self.frames))
