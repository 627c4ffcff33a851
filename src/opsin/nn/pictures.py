"""What towers share in preparing pictures: the numbers that pixels become, and the order of their patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from opsin.arrays import Floats
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.media import steps
from opsin.media.limits import Size
from opsin.media.picture import Picture
from opsin.media.steps import Filter
from opsin.spans import Area, Features, MediaSpan

if TYPE_CHECKING:
    from PIL.Image import Image

Value = TypeVar("Value")
LEAST_STD, FARTHEST = 1e-4, 1e4  # of numbers that stand for brightness from 0 to 1


@dataclass(frozen=True)
class Preparation:
    """How bytes of pixels become patches.

    Attributes:
        mean, std: of red, green and blue, where full brightness is 1.
        patch: pixels along a patch's side.
        block: patches along a side of the blocks that stand together.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int
    block: int = 1

    @classmethod
    def of(cls, file: File, patch: int, block: int = 1) -> Preparation:
        """Raises ModelError for other than three numbers that can be divided by."""
        mean, std = (tuple(file.get_floats(f"clip.vision.image_{name}").tolist()) for name in ("mean", "std"))
        sane = all(abs(value) <= FARTHEST for value in mean) and all(LEAST_STD <= value <= FARTHEST for value in std)
        if not (len(mean) == len(std) == 3 and sane):
            raise ModelError(
                f"{file.path}: clip.vision.image_mean is {mean[:4]}, image_std {std[:4]}", hint="the file is damaged"
            )
        return cls(mean, std, patch, block)

    def patches(self, image: Image) -> Floats:
        """[patches, 3 * patch * patch] of an RGB image whose sides are whole numbers of blocks."""
        return steps.patchify(steps.normalise(image, self.mean, self.std), self.patch, block=self.block)

    def squared(self, picture: Picture) -> Image:
        """In the middle of a square of the mean colour. Its growth is checked as the picture is laid out."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return steps.pad_to_square(steps.flatten(picture), (red, green, blue))

    def span(
        self, picture: Picture, *way: object, make: Callable[[], Floats], size: Size, area: Area | None = None,
        positions: int | None = None, atomic: bool = False,
    ) -> MediaSpan:  # fmt: skip
        """Rows of a picture that is processed at `size`: a grid of blocks, of which each becomes a row.

        Features are [patches high, patches wide, values of a patch], as `make` gives them in any shape.

        Args:
            way: what the family does, see `digest`.
            area: the part of the picture that is shown; all of it by default.
            positions: how far the position counter moves; as many as rows by default.
            atomic: whether the rows see each other in the decoder.
        """
        wide, high = (side // self.patch for side in size)
        grid, shape = (high // self.block, wide // self.block), (high, wide, 3 * self.patch**2)
        rows = grid[0] * grid[1]
        return MediaSpan(
            digest=self.digest(picture, *way),
            rows=rows,
            positions=rows if positions is None else positions,
            grid=grid,
            atomic=atomic,
            features=Features(shape, lambda: make().reshape(shape)),
            size=size,
            area=(0.0, 0.0, float(picture.width), float(picture.height)) if area is None else area,
        )

    def stretched(
        self, picture: Picture, size: Size, filter: Filter, *way: object,
        arrange: Callable[[Floats, Size], Floats] | None = None, positions: int | None = None, atomic: bool = False,
    ) -> MediaSpan:  # fmt: skip
        """The rows of a whole picture, stretched to `size`. `arrange` gives its patches another order than blocks'."""

        def make() -> Floats:
            patches = self.patches(steps.resize(steps.flatten(picture), size, filter))
            return patches if arrange is None else arrange(patches, size)

        return self.span(
            picture, "stretch", size, *way, make=make, size=size, positions=positions, atomic=atomic
        )  # fmt: skip

    def digest(self, picture: Picture, *way: object) -> bytes:
        """Of the picture and of all that happens to it; `way` says what the family does besides."""
        said = repr((self, way)).encode()
        return blake2b(picture.digest + said, digest_size=16).digest()


class Shared(Generic[Value]):
    """What several parts of a picture are cut from: made when the first part asks, dropped when the last has."""

    def __init__(self, make: Callable[[], Value], parts: int) -> None:
        self._make, self._parts = make, parts
        self._lock, self._asked = Lock(), 0
        self._value: Value | None = None

    def get(self) -> Value:
        """Safe from many threads. A part that asks again after the last has the value made anew."""
        with self._lock:
            value = self._make() if self._value is None else self._value
            self._asked = (self._asked + 1) % self._parts
            self._value = value if self._asked else None
            return value
