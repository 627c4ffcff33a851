"""What towers share in preparing pictures: the numbers that pixels become, and the order of their patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.media.picture import Picture
from opsin.media.steps import Steps
from opsin.nn.module import Floats

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
                f"{file.path}: clip.vision.image_mean is {mean}, image_std {std}", hint="the file is damaged"
            )
        return cls(mean, std, patch, block)

    def patches(self, image: Image, steps: Steps) -> Floats:
        """[patches, 3 * patch * patch] of an RGB image whose sides are whole numbers of blocks."""
        return steps.patchify(steps.normalise(image, self.mean, self.std), self.patch, block=self.block)

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
