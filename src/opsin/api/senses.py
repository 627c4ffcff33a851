"""The parts of a model for media, which one file holds: what it sees and what it hears through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opsin.api.identity import identity_of
from opsin.api.media_folder import MediaFolder
from opsin.api.waiting import PictureBytes
from opsin.arrays import Floats
from opsin.engine.encoding import Encodes, Turn
from opsin.engine.media_cache import MediaCache
from opsin.errors import ModelError
from opsin.gguf import TENSOR_TYPES, File, TensorType
from opsin.gguf.roles import is_projector
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.fetch import FetchRules
from opsin.media.limits import PictureLimits
from opsin.media.sound import Sound, Waveform
from opsin.models import Decoder, open_model
from opsin.ops import Array
from opsin.ops.device import Device
from opsin.spans import Kind, Patches
from opsin.text import Tokenizer

if TYPE_CHECKING:
    from opsin.api.audio import Audio
    from opsin.api.vision import Vision

DEAF: Final = "load a model that hears, and the mmproj file of that"


@dataclass(frozen=True, eq=False)
class Senses:
    """What one file has of both; one of them at least.

    Attributes:
        path: the file.
        format: the number format of most of its weights.
        identity: what tells the file from others.
        rules: what may be fetched.
        budgets: of what waits for the encoders.
        vision: the part for pictures.
        audio: the part for sound.
        notes: what a person should know: a part that is left out.
    """

    path: Path
    format: TensorType
    identity: str
    rules: FetchRules
    budgets: PictureBytes
    vision: Vision | None
    audio: Audio | None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, path: Path, rules: FetchRules, limits: PictureLimits, file: File | None = None,
        budget: PictureBudget = USUAL,
    ) -> Senses:  # fmt: skip
        """The parts of a file, whose weights are read later; `file` is that file, where it is open already.

        The other arguments are those of `Vision` and `Audio`. Raises ModelError for a file that has none, and for a
        part that nobody here knows, unless it is the part for sound beside one for pictures: then a note says so.
        """
        from opsin.api.audio import Audio
        from opsin.api.vision import Vision

        opened = open_model(path) if file is None else file.again()
        with opened:
            hears, notes = opened.get_bool("clip.has_audio_encoder", False), list[str]()
            sees = opened.get_bool("clip.has_vision_encoder", False) or not hears
            vision = Vision(path, rules, limits, opened, budget) if sees else None
            audio, budgets = None, PictureBytes.of(limits) if vision is None else vision.budgets
            try:
                audio = Audio(path, opened, rules, budgets) if hears else None
            except ModelError as error:
                if vision is None:
                    raise
                notes.append(f"sound is left out: {error}")
            return cls(path, _format(opened), identity_of(opened), rules, budgets, vision, audio, tuple(notes))

    @property
    def markers(self) -> dict[Kind, str]:
        """What the family's chat template writes for one picture, and for one sound."""
        seen: dict[Kind, str] = {} if self.vision is None else {"image": self.vision.marker}
        return seen if self.audio is None else {**seen, "audio": self.audio.marker}

    @property
    def memory_rows(self) -> int:
        """Of the largest picture, beside the text: 0 where media stands in it."""
        return 0 if self.vision is None else self.vision.memory_rows

    def keep_in(self, folder: MediaFolder, width: int) -> MediaCache:
        """Where what its encoders make is kept on disk. Raises FileError where nothing can be written there."""
        return folder.open(self.identity, width)

    def load_encoders(self, device: Device) -> Callable[[Turn], Encodes]:
        """What reads the weights, see `engine.encoding`: those of each part when the first of its media comes."""
        if self.audio is None:
            assert self.vision is not None
            return self.vision.load(device)
        vision, audio = None if self.vision is None else self.vision.load(device), self.audio.load(device)
        return audio if vision is None else lambda turn: BothEncoders(vision, audio, turn)

    def find_misfit(self, decoder: Decoder, tokenizer: Tokenizer) -> str | None:
        """Why it does not belong to a text model, if it does not. Names no file: strangers read it, too."""
        found = [part.find_misfit(decoder, tokenizer) for part in (self.vision, self.audio) if part is not None]
        return next(filter(None, found), None)

    def close(self) -> None:
        """Close the file, if it is open still."""
        for part in (self.vision, self.audio):
            if part is not None:
                part.close()


class BothEncoders:
    """One for features of two axes, which are sound, and one for all others. Each is read when it is needed."""

    def __init__(self, vision: Callable[[Turn], Encodes], audio: Callable[[Turn], Encodes], turn: Turn) -> None:
        self._load, self._turn = {True: audio, False: vision}, turn
        self._read: dict[bool, Encodes] = {}

    def encode(self, features: Floats) -> Array:
        is_sound = features.ndim == 3  # [media, frames, values]
        if is_sound not in self._read:
            self._read[is_sound] = self._load[is_sound](self._turn)
        return self._read[is_sound].encode(features)


def kind_of(medium: object) -> Kind:
    """What somebody gives in Python: sounds say so, all else is a picture, or none."""
    if isinstance(medium, Patches):
        return medium.kind
    return "audio" if isinstance(medium, Sound | Waveform) else "image"


def _format(file: File) -> TensorType:
    """The number format of most weights of the parts for media."""
    counts: Counter[int] = Counter()
    for name, info in file.tensors.items():
        if is_projector(name):
            counts[info.type] += info.elements
    return TENSOR_TYPES[counts.most_common(1)[0][0]]
