"""Model families, one a file: found by listing this folder, so that a new family is one new file."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import InspectLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.dialect import Dialect, translate
from opsin.gguf.rules import Rules
from opsin.media.film import Film
from opsin.media.picture import Picture
from opsin.media.sound import Waveform
from opsin.nn.batch import Batch, GroupShape, StateShape
from opsin.nn.module import Reader
from opsin.nn.writing import Dictation, Writing
from opsin.ops import Array, Pages
from opsin.spans import MediaSpan, Patches

if TYPE_CHECKING:
    from opsin.nn.films import Parts


class Decoder(Protocol):
    """A text decoder: ids in, logits out."""

    @property
    def groups(self) -> Mapping[str, GroupShape]:
        """Its KV groups: "self", and others that it reads."""
        ...

    @property
    def states(self) -> Mapping[str, StateShape]:
        """The states of its recurrent layers, where it has any."""
        ...

    @property
    def vocabulary(self) -> int:
        """Ids that it gives: the width of its logits. None (0) where it only encodes: `hidden` is all that it has."""
        ...

    @property
    def ids(self) -> int:
        """Ids that it takes: its vocabulary, and perhaps some that it never gives."""
        ...

    @property
    def context(self) -> int:
        """Positions that it was trained for."""
        ...

    @property
    def width(self) -> int:
        """Of an embedding."""
        ...

    @property
    def media_width(self) -> int:
        """Of an embedding of media: `width`, or more where later layers get a part of it (see `Batch.deepen`)."""
        ...

    @property
    def segments(self) -> int:
        """Texts of a pair that it tells apart by embeddings of their own; 0 where it does not."""
        ...

    @property
    def axes(self) -> int:
        """Positions of a row: 1, or 3 (time, row, column) where pictures are laid out in a plane."""
        ...

    @property
    def guesses(self) -> bool:
        """Whether it has a layer that guesses the token after the next: then it is a `Guesses`, too."""
        ...

    def hidden(self, batch: Batch) -> Array:
        """States [outputs, width] after the last norm, of the rows that the batch wants."""
        ...

    def forward(self, batch: Batch) -> Array:
        """Logits [outputs, vocabulary] of the same: the output matrix of `hidden`."""
        ...


class Remembers(Protocol):
    """A decoder with a group MEMORY: some of its layers attend to media beside the sequence (`Batch.memory`)."""

    def remember(self, memory: Array, pages: Pages, slots: Array) -> None:
        """Write the keys and values of memory [rows, width] to slots [rows] of the group's pages. Eager, once."""
        ...


class Guesses(Protocol):
    """A decoder with a layer behind its own that guesses the token after the next (`nn.next_token`)."""

    def every(self, batch: Batch) -> Array:
        """States [rows, width] after the last norm, of all rows. Keys and values of that layer are written, too.

        The batch has a `shift`. `logits` of those that it wants are what `forward` gives.
        """
        ...

    def logits(self, x: Array) -> Array:
        """Of states [rows, width]."""
        ...

    def guess(self, batch: Batch, states: Array) -> tuple[Array, Array]:
        """States [rows, width] behind the batch's rows, which are of text, and logits [rows, vocabulary] of them.

        `states` are those of the rows before. What comes out may stand for the states of the batch's rows.
        """
        ...


class VisionEncoder(Protocol):
    """What turns pictures into rows of a sequence."""

    @property
    def width(self) -> int:
        """Of an embedding; the `media_width` of a decoder that takes it."""
        ...

    @property
    def marker(self) -> str:
        """What the family's chat template writes for one picture."""
        ...

    def layout(self, picture: Picture) -> Patches:
        """What stands in a prompt for a picture. Cheap: sizes are computed, no pixel is touched.

        Its features are made when they are needed.
        """
        ...

    def encode(self, features: npt.NDArray[np.float32]) -> Array:
        """Features of pictures of one shape, [pictures, *shape], to embeddings [pictures * rows, width]. Eager.

        A batch gives what its pictures give one by one.
        """
        ...


class AudioEncoder(Protocol):
    """What turns sound into rows of a sequence."""

    @property
    def width(self) -> int:
        """Of an embedding; the `media_width` of a decoder that takes it."""
        ...

    @property
    def marker(self) -> str:
        """What the family's chat template writes for one sound."""
        ...

    def layout(self, sound: Waveform) -> Patches:
        """What stands in a prompt for a sound at 16 kHz. Cheap: its length says it, no sample is looked at.

        Features of its spans are frames [frames, values], made when they are needed; no picture's have two axes.
        """
        ...

    def encode(self, features: npt.NDArray[np.float32]) -> Array:
        """Frames [spans, frames, values] to embeddings [spans * rows, width]. As `VisionEncoder.encode`."""
        ...


class SoundEncoder(Protocol):
    """What turns sound into rows that a decoder sees, window by window, to write down what was said."""

    @property
    def width(self) -> int:
        """Of an embedding; the `media_width` of a decoder that takes it."""
        ...

    @property
    def bands(self) -> int:
        """Of a log-mel frame (`media.mel`)."""
        ...

    @property
    def frames(self) -> int:
        """That it hears at once."""
        ...

    @property
    def writing(self) -> Writing:
        """How what was said is written down with it."""
        ...

    def span(self, logs: npt.NDArray[np.float32]) -> MediaSpan:
        """What stands in a prompt for a window of frames [frames, bands]. Nothing is computed yet."""
        ...

    def encode(self, features: npt.NDArray[np.float32]) -> Array:
        """Windows [windows, frames, bands] to embeddings [windows * rows, width]. As `VisionEncoder.encode`."""
        ...


Loaded = TypeVar("Loaded")
Loads = Callable[[File, Reader], Loaded]
LoadDecoder = Callable[[File, Reader], Decoder]
LoadEncoder = Callable[[File, Reader], VisionEncoder | None]  # None: of another family with this projector


def families(named: str | None = None) -> list[ModuleType]:
    """The modules of this folder, in the order of their names: all, or those whose source names an architecture.

    It has the name in quotes, or takes NAME from the family of that name. Looking takes 4 ms, importing all modules 50.
    """
    words = ("",) if named is None else (f'"{named}"', f"models.{named} import NAME")
    names = [f"{__name__}.{entry.name}" for entry in pkgutil.iter_modules(__path__)]
    sources = [(name, _source(name)) for name in names]
    return [
        importlib.import_module(name)
        for name, source in sources
        if source is None or any(word in source for word in words)
    ]


def _source(name: str) -> str | None:
    """What a module was written as, wherever its package has it; None where only compiled code is there."""
    spec = importlib.util.find_spec(name)
    return cast(InspectLoader, spec.loader).get_source(name) if spec is not None else None


def architectures(named: str | None = None) -> dict[str, LoadDecoder]:
    """Architectures (general.architecture) and who loads them: decoders, and encoders of text.

    `named`, here and below: those of the families that name it.
    """
    found: dict[str, LoadDecoder] = {}
    for family in families(named):
        listed: dict[str, LoadDecoder] = {**vars(family).get("DECODERS", {}), **vars(family).get("TEXT_ENCODERS", {})}
        twice = found.keys() & listed.keys()
        assert not twice, f"{family.__name__} lists {twice}, and so does another"
        found |= listed
    return found


def projectors(named: str | None = None) -> dict[str, list[LoadEncoder]]:
    """Projectors (clip.projector_type) and who loads their towers. "" stands for files that name none."""
    found: dict[str, list[LoadEncoder]] = {}
    for family in families(named):
        for name, load in vars(family).get("ENCODERS", {}).items():
            found.setdefault(name, []).append(load)
    return found


def load_hearer(file: File, source: Reader) -> SoundEncoder:
    """The encoder of a file that writes down what was said. Raises ModelError as `load_audio_encoder`."""
    return _by_projector(file, hearers)(file, source)


def load_audio_encoder(file: File, source: Reader) -> AudioEncoder:
    """The encoder of sound of a file. Raises ModelError where it has none, or one that nobody here knows."""
    return _by_projector(file, audio_encoders)(file, source)


def hearers(named: str | None = None) -> dict[str, Loads[SoundEncoder]]:
    """Projectors (clip.audio.projector_type) of models that write down what was said, and who loads their towers."""
    return {name: load for family in families(named) for name, load in vars(family).get("HEARERS", {}).items()}


def audio_encoders(named: str | None = None) -> dict[str, Loads[AudioEncoder]]:
    """The same of models that are talked to."""
    return {name: load for family in families(named) for name, load in vars(family).get("AUDIO_ENCODERS", {}).items()}


def find_dictation(file: File) -> Dictation | None:
    """The prompt with which the model of a part for sound writes down what was said, as the family lists it.

    None: it has none of its own, and is asked in words.
    """
    name = _sound_projector(file)
    known: dict[str, Dictation] = {}
    for family in families(name):
        known |= vars(family).get("DICTATIONS", {})
    return known.get(name)


def _sound_projector(file: File) -> str:
    return file.get_str("clip.audio.projector_type", file.get_str("clip.projector_type", ""))


def _by_projector(file: File, table: Callable[..., Mapping[str, Loads[Loaded]]]) -> Loads[Loaded]:
    """Who loads the part of a file for sound."""
    if not file.get_bool("clip.has_audio_encoder", False):
        raise ModelError(f"{file.path} holds no part for sound", hint="give a model that hears")
    name = _sound_projector(file)
    known = table(name)
    if name not in known:
        raise ModelError(
            f"{file.path}: sound by {name!r} is not supported", hint=f"supported: {', '.join(sorted(table()))}"
        )
    return known[name]


def film_layout(file: File) -> Callable[[Any, Film], Parts]:
    """How an encoder of this file (its first argument) lays films out: the family's own way, or frames as pictures."""
    from opsin.nn.films import as_pictures

    name = file.get_str("clip.vision.projector_type", file.get_str("clip.projector_type", ""))
    known: dict[str, Callable[[Any, Film], Parts]] = {}
    for family in families(name):
        known |= vars(family).get("FILMS", {})
    return known.get(name, as_pictures)


def rules() -> list[Rules]:
    """How checkpoints of transformers become files, as the families list it in RULES."""
    return [entry for family in families() for entry in vars(family).get("RULES", ())]


def dialects(named: str | None = None) -> list[Dialect]:
    """Other words for llama.cpp's, as the families list them in DIALECTS."""
    return [entry for family in families(named) for entry in vars(family).get("DIALECTS", ())]


def open_model(path: str | Path) -> File:
    """A file of a model, in llama.cpp's words, whichever it has itself. Raises FileError as `File.open` does."""
    file = File.open(path)
    try:
        return translate(file, dialects(str(file.metadata.get("general.architecture"))))
    except BaseException:
        file.close()
        raise


def opened(source: str | Path | File) -> AbstractContextManager[File]:
    """`open_model`, until the `with` block ends; or a file that is open already, and stays so."""
    return nullcontext(source) if isinstance(source, File) else open_model(source)


def is_known(file: File) -> bool:
    """Whether a family here reads files of its architecture."""
    name = file.get_str("general.architecture", "")
    return name in architectures(name)


def load_decoder(file: File, source: Reader) -> Decoder:
    """The decoder of a file. Raises ModelError for an architecture that nobody here knows."""
    name = file.get_str("general.architecture")
    known = architectures(name)
    if name not in known:
        listed = ", ".join(sorted(architectures()))
        raise ModelError(f"{file.path}: architecture {name!r} is not supported", hint=f"supported: {listed}")
    return known[name](file, source)


def load_encoder(file: File, source: Reader) -> VisionEncoder:
    """The encoder of pictures of a file. Raises ModelError where it has none, or one that nobody here knows."""
    if not file.get_bool("clip.has_vision_encoder", False):
        raise ModelError(f"{file.path} holds no part for pictures", hint="it may be a model of text: give its mmproj")
    name = file.get_str("clip.vision.projector_type", file.get_str("clip.projector_type", ""))
    known = projectors(name)
    if name not in known:
        listed = ", ".join(sorted(filter(None, projectors())))
        raise ModelError(f"{file.path}: projector {name!r} is not supported", hint=f"supported: {listed}")
    for load in known[name]:
        encoder = load(file, source)
        if encoder is not None:
            return encoder
    raise AssertionError(f"no family takes {file.path}, whose projector is {name!r}")
