"""The part of `Model` that takes pictures and sounds: what they become in a prompt, and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, Unpack, cast, overload

import numpy as np

from opsin.api.arguments import check_functions
from opsin.api.picture_options import PictureOptions
from opsin.api.senses import DEAF, Senses, kind_of
from opsin.engine.engine import Engine
from opsin.errors import RequestError
from opsin.media.budget import USUAL, PictureBudget
from opsin.ops.device import Device
from opsin.process import Stays
from opsin.spans import Patches

if TYPE_CHECKING:
    from opsin.api.vision import Embeddings, Vision
    from opsin.media.decode import Source
    from opsin.media.sound import Sound, Waveform
    from opsin.media.swapping import Step

Medium: TypeAlias = "Source | Sound | Waveform | Patches"


class Perceives(Stays):
    """What a model does with media.

    Args:
        senses: its parts for media, where it has any.
        no_media_hint: what to do about not seeing, where it does not.
        writes: whether it has a part that writes; without, its encoders run alone.
    """

    def __init__(self, senses: Senses | None, device: Device, no_media_hint: str, *, writes: bool) -> None:
        self.senses, self.no_media_hint = senses, no_media_hint
        self._tower = None
        if senses is not None and not writes:
            from opsin.api.vision import Tower

            self._tower = Tower(senses.load_encoders(device), device)

    @property
    def engine(self) -> Engine:
        """What encodes."""
        raise NotImplementedError

    @property
    def vision(self) -> Vision | None:
        """The part for pictures."""
        return None if self.senses is None else self.senses.vision

    @property
    def has_vision(self) -> bool:
        """Whether it takes pictures."""
        return self.vision is not None

    @property
    def has_audio(self) -> bool:
        """Whether it takes sounds, and is asked about them."""
        return self.senses is not None and self.senses.audio is not None

    def prepare(
        self, picture: Medium | Embeddings, *, steps: Mapping[str, Step] | None = None, **asked: Unpack[PictureOptions]
    ) -> Patches:
        """What stands in a prompt for a picture or a sound: rows, grid, markers, rectangles. Nothing is computed yet.

        A picture is a path, a file's bytes, a Pillow image or an array [height, width] or [height, width, channels]; a
        sound is an `opsin.Sound`.
        `steps` are functions that take the place of the preparation's own, by their names in `opsin.media.steps`;
        they are called like these, at once, and must give images and arrays of the same sizes.
        Keywords are those of `PictureBudget`, such as detail or max_image_tokens: how finely to look at it.
        """
        from opsin.api.vision import Embeddings

        check_functions(steps, "steps")
        budget = PictureBudget(**asked)
        if not isinstance(picture, Embeddings) and kind_of(picture) == "audio":
            if steps or budget != USUAL:
                raise RequestError("a sound has no steps and no size", hint="give the sound alone")
            return self._prepared(picture, None, USUAL)
        return self._need_vision().prepare(cast("Source | Patches | Embeddings", picture), own=steps, budget=budget)

    @overload
    def encode(self, pictures: Medium) -> Embeddings: ...  # type: ignore[overload-overlap] # str, bytes: one
    @overload
    def encode(self, pictures: Sequence[Medium]) -> list[Embeddings]: ...
    def encode(self, pictures: Medium | Sequence[Medium]) -> Embeddings | list[Embeddings]:
        """Embeddings [rows, width] of a picture or a sound, or of several, which are encoded together where they may.

        They may where their shapes are equal.
        """
        from opsin.api.vision import Embeddings

        several = isinstance(pictures, Sequence) and not isinstance(pictures, str | bytes | bytearray | memoryview)
        many = cast("Sequence[Medium]", pictures if several else [pictures])
        if not many:
            return []
        prepared = [self._prepared(medium, None, USUAL) for medium in many]
        spans = [span for patches in prepared for span in patches.spans]
        rows = self._tower.embed(spans) if self._tower is not None else self.engine.embed(spans)
        ends = np.cumsum([patches.embedded for patches in prepared])
        made = [Embeddings(part, p) for part, p in zip(np.split(rows, ends[:-1]), prepared, strict=True)]
        return made if several else made[0]

    def _prepared(self, medium: Medium, name: str | None, budget: PictureBudget) -> Patches:
        """A picture or a sound, which errors call by this name."""
        if kind_of(medium) == "image":
            return self._need_vision().prepare(cast("Source | Patches", medium), name, budget=budget)
        if self.senses is None or self.senses.audio is None:
            raise RequestError("this model does not hear", hint=DEAF)
        return self.senses.audio.prepare(cast("Sound | Waveform | Patches", medium), name)

    def _need_vision(self) -> Vision:
        if self.vision is None:
            raise RequestError("this model takes text only", hint=self.no_media_hint)
        return self.vision
