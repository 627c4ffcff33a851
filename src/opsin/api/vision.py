"""The part of a model that sees: known by its metadata at once, its weights read when the first picture comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from threading import BoundedSemaphore, Lock

import numpy as np
import numpy.typing as npt
from PIL import Image

from opsin.api.part_file import PartFile
from opsin.api.waiting import PictureBytes, keep_decoded
from opsin.arrays import Floats
from opsin.config import available_threads
from opsin.engine.encoding import Encodes, Turn, check_finite
from opsin.errors import FieldError, RequestError
from opsin.gguf import File
from opsin.media.budget import USUAL, Detail, PictureBudget
from opsin.media.decode import Source, open_picture
from opsin.media.fetch import FetchRules
from opsin.media.fetch import fetch as fetch_bytes
from opsin.media.limits import PictureLimits
from opsin.media.picture import Picture
from opsin.media.swapping import Step, StepOverrides
from opsin.models import Decoder, VisionEncoder, film_layout, load_encoder, open_model
from opsin.ops.device import Device
from opsin.process import Home
from opsin.spans import Features, MediaSpan, Patches
from opsin.text import Tokenizer
from opsin.text.markers import strange_word

_PREPARED = "prepared before it was asked about: it keeps its size and tokens"
_LARGEST = 4096  # pixels a side of a picture that takes as many tiles as there may be


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What a picture becomes for a decoder.

    Attributes:
        values: float32 [rows, width].
        patches: the picture that they were made of: where they belong among its markers.
    """

    values: Floats
    patches: Patches

    def __repr__(self) -> str:
        return f"<Embeddings: {self.values.dtype} {list(self.shape)} of {self.patches!r}>"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getstate__(self) -> dict[str, object]:
        """For copies and other processes: all but how the picture would be encoded again."""
        parts = tuple(p if isinstance(p, str) else replace(p, features=None) for p in self.patches.parts)
        return {"values": self.values, "patches": replace(self.patches, parts=parts)}

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.generic]:
        return np.array(self.values, dtype, copy=copy)

    def placed(self) -> Patches:
        """The picture with these values in its rows. Raises RequestError where there are not as many."""
        values = np.ascontiguousarray(self.values, np.float32)
        if values.ndim != 2 or len(values) != self.patches.embedded:
            raise RequestError(f"embeddings {values.shape} for a picture of {self.patches.embedded} tokens")
        parts: list[str | MediaSpan] = []
        row = 0
        for part in self.patches.parts:
            if isinstance(part, MediaSpan):
                count = part.shown.stop - part.shown.start
                own = values[row : row + count]
                digest = blake2b(part.digest + own.tobytes(), digest_size=16, person=b"embeddings").digest()
                parts.append(replace(part, digest=digest, embeddings=own, features=None, first=0, encoded=0))
                row += count
            else:
                parts.append(part)
        return replace(self.patches, parts=tuple(parts))


class Vision:
    """What stands in a prompt for a picture, and where its encoder comes from.

    Args:
        path: the file with the vision part. It stays open until its weights are read: what is renamed over it since is
            another file, and belongs to another model.
        rules: what may be fetched.
        limits: how large a picture may be.
        file: this file, where it is open already.
        budget: how finely pictures are looked at, where a question does not say.
    """

    def __init__(
        self, path: Path, rules: FetchRules, limits: PictureLimits, file: File | None = None,
        budget: PictureBudget = USUAL,
    ) -> None:  # fmt: skip
        self.path, self.rules, self.limits, self.budget = path, rules, limits, budget
        self._home = Home()
        # What is being decoded is in no budget yet, and more threads than processors gain nothing.
        self.decoding = BoundedSemaphore(available_threads())
        self.budgets = PictureBytes.of(limits)
        self._part = PartFile(open_model(path) if file is None else file.again(), load_encoder)
        self.close, self._meta = self._part.close, self._part.meta
        self.lay_out_film = partial(film_layout(self._part.file), self._meta)

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self._meta.width

    @property
    def marker(self) -> str:
        """What the family's chat template writes for one picture."""
        return self._meta.marker

    @property
    def memory_rows(self) -> int:
        """Of the largest picture, beside the text: 0 where pictures stand in it."""
        picture = Picture(Image.new("1", (_LARGEST, _LARGEST)), None, bytes(16))
        return sum(span.memory for span in self._meta.layout(picture).spans)

    def load(self, device: Device) -> Callable[[Turn], VisionEncoder]:
        """What reads the weights, once, see `engine.encoding`."""
        return self._part.load(device)

    def prepare(
        self, source: Source | Patches | Embeddings, name: str | None = None, *, own: Mapping[str, Step] | None = None,
        budget: PictureBudget = USUAL, several: bool = False,
    ) -> Patches:  # fmt: skip
        """What stands in a prompt for a picture. `name` is what errors call it; `own` steps take the place of others.

        Own steps are run at once. `budget` is what is asked of this picture; what is prepared already stays as it is,
        and says so. `several`: whether it is one of several. Raises DeviceError in a forked child.
        """
        self._home.check()
        if own and isinstance(source, Patches | Embeddings):
            raise RequestError("a picture that is prepared already has no steps before it", hint="give the picture")
        if isinstance(source, Patches | Embeddings):
            patches = source if isinstance(source, Patches) else source.placed()
            return patches if budget == USUAL else replace(patches, notes=(*patches.notes, _PREPARED))
        data = None
        if isinstance(source, bytes | bytearray | memoryview):
            source = data = bytes(source)
        with self.decoding:
            picture = open_picture(source, self.limits, name=name)
        picture = replace(picture, budget=picture.budget.within(budget).within(self.budget), several=several)
        try:
            patches = self._layout(picture, budget)
        except RequestError as error:
            raise FieldError(name or "the picture", error.message, hint=error.hint) from error
        if own:
            overrides = StepOverrides(own)
            with overrides.active():
                patches = _made(patches)
            overrides.check_called()
        elif data is not None:
            again = partial(self._again, name, picture.budget, several)
            patches = keep_decoded(patches, data, again, self.budgets, picture.bytes)
        return replace(patches, original=picture.size)

    def _layout(self, picture: Picture, asked: PictureBudget) -> Patches:
        """With notes of what was asked for and is not so."""
        patches = self._meta.layout(picture)
        budgets = (asked, picture.budget)
        notes = dict.fromkeys(note for budget in budgets for note in budget.unmet(patches.size, patches.embedded))
        if asked.detail != "auto" and self._is_alike(picture):
            notes[f"detail is {asked.detail}: this model sees it alike at each"] = None
        return replace(patches, notes=(*patches.notes, *notes))

    def _is_alike(self, picture: Picture) -> bool:
        """Whether every detail shows it in the same way."""
        details: tuple[Detail, ...] = ("low", "high")
        try:
            shown = [self._meta.layout(picture.at(replace(picture.budget, detail=detail))).spans for detail in details]
        except RequestError:
            return False
        return shown[0] == shown[1]

    def _again(self, name: str | None, budget: PictureBudget, several: bool, data: bytes) -> Patches:
        picture = open_picture(data, self.limits, name=name)
        return self._meta.layout(replace(picture, budget=budget, several=several))

    def fetch(self, url: str, name: str, budget: PictureBudget = USUAL, *, several: bool = False) -> Patches:
        """A picture behind a URL, by the rules."""
        return self.prepare(fetch_bytes(url, self.rules, name=name), name, budget=budget, several=several)

    def find_misfit(self, decoder: Decoder, tokenizer: Tokenizer) -> str | None:
        """Why this part does not belong to a text model, if it does not. Names no file: strangers read it, too."""
        if self.width != decoder.media_width:
            return f"it gives embeddings of {self.width} values, the model takes {decoder.media_width}"
        patches = self._meta.layout(open_picture(Image.new("RGB", (640, 480))))
        axes = 3 if any(span.positions != span.rows for span in patches.spans) else 1
        if axes != decoder.axes and any(span.grid for span in patches.spans):  # without a grid, rows are like text
            return f"it lays pictures out on {axes} axes of positions, the model has {decoder.axes}"
        strange = strange_word(patches.markers, tokenizer)
        return f"it writes {strange!r} around pictures, which is no token of the model" if strange else None


def _made(patches: Patches) -> Patches:
    """A picture whose features are there, and say who it is: functions have no digest."""
    made: dict[bytes, tuple[bytes, Features]] = {}  # spans of one digest show parts of the same

    def part(given: str | MediaSpan) -> str | MediaSpan:
        if isinstance(given, str) or given.features is None:
            return given
        if given.digest not in made:
            values = given.features.make()
            digest = blake2b(given.digest + values.tobytes(), digest_size=16, person=b"own steps").digest()
            made[given.digest] = digest, Features(values.shape, lambda: values)
        digest, features = made[given.digest]
        return replace(given, digest=digest, features=features)

    return replace(patches, parts=tuple(part(given) for given in patches.parts))


class Tower:
    """Encoders alone, without a text model; `load` reads their weights, once."""

    def __init__(self, load: Callable[[Turn], Encodes], device: Device) -> None:
        self._load, self._lock, self._home = load, Lock(), device.home
        self._encoder: Encodes | None = None

    def embed(self, spans: Sequence[MediaSpan]) -> Floats:
        """Embeddings [rows, width] of media, one after another. Equal shapes are encoded together."""
        self._home.check()
        by_shape: dict[tuple[int, ...], dict[bytes, Features]] = {}
        for span in spans:
            if span.features is None:
                raise RequestError("a picture has no features", hint="prepare it with this model")
            by_shape.setdefault(span.features.shape, {}).setdefault(span.digest, span.features)
        found: dict[bytes, Floats] = {}
        with self._lock:
            self._encoder = self._encoder or self._load(lambda: None)
            for alike in by_shape.values():
                features = [one.make() for one in alike.values()]
                rows = np.asarray(self._encoder.encode(np.stack(features)).numpy(), np.float32)
                check_finite(rows)
                found |= dict(zip(alike, np.split(rows, len(alike)), strict=True))
        return np.concatenate([found[span.digest][span.shown] for span in spans])
