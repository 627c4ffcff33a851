"""LLaVA-OneVision: LLaVA-NeXT whose maps are shrunk where they are larger than so many tiles.

Of several pictures of a conversation each is seen once, in a square; a film's frames are seen at half as many rows high
and wide. A newline ends each such picture, and each film.

GGUF: as LLaVA-NeXT's, with clip.vision.image_aspect_ratio = "anyres_max_9". Oracle: transformers'
LlavaOnevisionForConditionalGeneration, with its processors.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeGuard

import numpy as np

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.gguf.rules import Key, Settings
from opsin.media import steps
from opsin.media.film import Film
from opsin.media.frames import by_rate
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.models.llava import is_tiled
from opsin.models.llava_next import ANYRES, RATIO, LlavaNextVision, tile_rules
from opsin.nn.films import Parts, Sees, as_pictures, told
from opsin.nn.module import Reader
from opsin.nn.states import shrunk
from opsin.ops import Array
from opsin.spans import Features, MediaSpan, Patches

SHRUNK = "anyres_max_"
MOST_FRAMES = 32  # of a film, where nobody says
NEWLINE = (1, 1, 1)  # the shape of the features of one
NEWLINE_DIGEST = blake2b(b"newline", digest_size=16, person=b"llava").digest()


@dataclass(frozen=True, eq=False)
class LlavaOneVision(LlavaNextVision):
    """A map that is larger than `most_tiles` tiles is shrunk to as many."""

    most_tiles: int

    @classmethod
    def load(cls, file: File, source: Reader) -> LlavaOneVision | None:
        """None where maps are shown as large as they are. Raises ModelError for another way to cut pictures."""
        told = file.get_str(RATIO, ANYRES)
        if not is_tiled(file) or told == ANYRES:
            return None
        if not _is_ratio(told):
            raise ModelError(f"{file.path}: {RATIO} is {told!r:.40}", hint="'anyres' and 'anyres_max_9' are supported")
        return cls(**cls.parts(file, source), most_tiles=int(told.removeprefix(SHRUNK)))

    def layout(self, picture: Picture) -> Patches:
        return self._one_of_several(picture) if picture.several else super().layout(picture)

    def film(self, film: Film) -> Parts:
        """A film as one run of rows: those of its frames, and a newline."""
        numbers = by_rate(film, film.choice, most=MOST_FRAMES)
        frames = [self._frame(film, number) for number in numbers]
        return told([Patches((*frames, self._newline(film.size)), original=film.size)], film, len(numbers))

    def encode(self, features: Floats) -> Array:
        """Of frames and newlines too."""
        if features.shape[1:] == NEWLINE:
            return self.tower.ops.constant(np.tile(self.newline, (len(features), 1)))
        return self._halved(features[:, 0]) if features.ndim == 5 else super().encode(features)

    def shown(self, maps: Floats) -> Floats:
        return shrunk(maps, *self.shown_size(*maps.shape[1:3]))

    def shown_size(self, rows: int, columns: int) -> tuple[int, int]:
        ratio = math.sqrt(rows * columns / (self.most_tiles * self.tower.shape.grid**2))
        return (max(1, int(rows // ratio)), max(1, int(columns // ratio))) if ratio > 1.1 else (rows, columns)

    def _one_of_several(self, picture: Picture) -> Patches:
        """In the middle of a square of the mean colour."""
        longer = max(picture.size)
        steps.check_growth(picture.size, (longer, longer))

        def make() -> Floats:
            image = steps.resize(self.preparation.squared(picture), self.side, "bicubic")
            return self.preparation.patches(image.crop((0, 0, *self.seen)))

        left, top = ((side - longer) / 2 for side in picture.size)
        span = replace(self.tile(picture, "square", make), area=(left, top, left + longer, top + longer))
        return Patches((span, self._newline(picture.size)), picture.notes, original=picture.size)

    def _newline(self, size: Size) -> MediaSpan:
        """The row that ends a picture of this size."""
        features = Features(NEWLINE, lambda: np.zeros(NEWLINE, np.float32))
        area = (0.0, 0.0, float(size[0]), float(size[1]))
        return MediaSpan(NEWLINE_DIGEST, 1, 1, (1, 1), features=features, size=size, area=area)

    def _frame(self, film: Film, number: int) -> MediaSpan:
        """The rows of a frame, a quarter of a picture's."""

        def make() -> Floats:
            features = self.overview(film.picture(number)).features
            assert features is not None
            return features.make()[None]

        span, half = self.overview(film.unseen(number)), -(-self.tower.shape.grid // 2)
        assert span.features is not None
        digest = self.preparation.digest(film.unseen(number), "frame", self.side)
        features = Features((1, *span.features.shape), make)
        return replace(span, digest=digest, rows=half**2, positions=half**2, grid=(half, half), features=features)

    def _halved(self, features: Floats) -> Array:
        """Rows of frames [frames, grid, grid, values]."""
        grid = self.tower.shape.grid
        maps = np.asarray(self.project(features).numpy(), np.float32).reshape(len(features), grid, grid, self.width)
        half = shrunk(maps, -(-grid // 2), -(-grid // 2))
        return self.tower.ops.constant(np.ascontiguousarray(half.reshape(-1, self.width)))


def lay_out_film(tower: Sees, film: Film) -> Parts:
    """As OneVision sees it; as pictures where the tower is another of the same projector."""
    return tower.film(film) if isinstance(tower, LlavaOneVision) else as_pictures(tower, film)


def _is_ratio(told: object) -> TypeGuard[str]:
    return isinstance(told, str) and re.fullmatch(SHRUNK + r"[1-9]\d{0,3}", told) is not None


def _max_ratio(settings: Settings) -> str:
    told = settings.get("vision_aspect_ratio", "str", "anyres_max_9")
    if not _is_ratio(told):
        raise ModelError(
            f"{settings.where}: vision_aspect_ratio is {told!r:.40}", hint="'anyres_max_9' can be converted"
        )
    return told


ENCODERS = {"mlp": LlavaOneVision.load, "": LlavaOneVision.load}
FILMS = dict.fromkeys(ENCODERS, lay_out_film)
RULES = (
    tile_rules("LlavaOnevisionForConditionalGeneration", "siglip_vision_model", -1, Key(RATIO, _max_ratio, "str")),
)
