"""A picture as everybody sees it: upright RGB pixels, perhaps with transparency, and who it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from opsin.media.budget import USUAL, PictureBudget

if TYPE_CHECKING:
    from PIL.Image import Image

STRIP_ROWS = 256  # rows handled at once where a whole copy would double the memory


@dataclass(frozen=True)
class Picture:
    """Decoded, upright, in sRGB. Its image is the only copy of the pixels: who drops the picture frees them.

    Attributes:
        image: mode RGB. Pillow's own, because resizing starts from it without a copy; nobody writes into it.
        coverage: mode L: how opaque each pixel is; None where all are.
        digest: 16 bytes; equal for equal files, and for equal pixels handed over as images or arrays.
        notes: what a person should know: "frame 1 of 12".
        budget: how finely it is to be looked at.
        several: whether it is one of several that are asked about together, which some families see otherwise.
    """

    image: Image = field(repr=False, compare=False)
    coverage: Image | None = field(repr=False, compare=False)
    digest: bytes
    notes: tuple[str, ...] = ()
    budget: PictureBudget = USUAL
    several: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.image.height

    def at(self, budget: PictureBudget) -> Picture:
        """The same picture, to be looked at so."""
        return replace(self, budget=budget)

    @property
    def bytes(self) -> int:
        """What its pixels take in memory: Pillow has four bytes for the three of a colour."""
        return self.width * self.height * (4 if self.coverage is None else 5)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """A new array [height, width, 3]. Transparent pixels have the colours that the file gives them."""
        return np.asarray(self.image)

    @property
    def alpha(self) -> npt.NDArray[np.uint8] | None:
        """A new array [height, width] from 0, transparent, to 255; None where nothing is transparent."""
        return None if self.coverage is None else np.asarray(self.coverage)


def digest_of_file(data: bytes | memoryview) -> bytes:
    """Of a file's bytes: the cheap one, the same wherever the bytes came from."""
    return blake2b(data, digest_size=16, person=b"file").digest()


def digest_of_pixels(image: Image, coverage: Image | None) -> bytes:
    """Of pixels that came without a file."""
    digest = blake2b(digest_size=16, person=b"pixels")
    digest.update(b"%d %d %d " % (*image.size, coverage is not None))
    for plane in (image, coverage):
        for top in range(0, image.height if plane is not None else 0, STRIP_ROWS):
            assert plane is not None
            digest.update(plane.crop((0, top, plane.width, min(plane.height, top + STRIP_ROWS))).tobytes())
    return digest.digest()
