"""The steps from a Picture to what an encoder eats. A family composes them in its own order, filter and rounding.

Those marked `@step` may be swapped by whoever prepares a picture (`opsin.media.swapping`): call them as `steps.NAME`.

Each is pure: an image or an array goes in, another comes out. Up to `normalise` they work on Pillow's RGB images, with
Pillow's own filters, which is what the PIL processors of transformers do. Sizes are (width, height).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np
from PIL import Image

from opsin.arrays import Floats
from opsin.errors import RequestError
from opsin.media.limits import Size
from opsin.media.picture import STRIP_ROWS, Picture

Colour = tuple[int, int, int]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")
Caller = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], object]

CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)  # calls steps; None: they are called as they are
STEPS: dict[str, Callable[..., Any]] = {}  # those that may be swapped, by name, as they are
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
MOST_PIXELS = 64_000_000  # of a resized image: a picture of 1 x 30000 grows a lot when its short side must be 336
_FILTERS = {name: Image.Resampling[name.upper()] for name in Filter.__args__}  # type: ignore[attr-defined]


def step(function: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """A step that may be swapped: where there is a CALLER, it calls."""
    STEPS[function.__name__] = function

    @wraps(function)
    def call(*args: Arguments.args, **options: Arguments.kwargs) -> Made:
        caller = CALLER.get()
        if caller is None:
            return function(*args, **options)
        return cast(Made, caller(function.__name__, function, args, options))

    return call


@step
def flatten(picture: Picture, background: Colour | None = WHITE) -> Image.Image:
    """The picture on a background; None leaves transparent pixels in whatever colour the file gives them."""
    if picture.coverage is None or background is None:
        return picture.image
    flat = picture.image.copy()
    for top in range(0, picture.height, STRIP_ROWS):
        box = (0, top, picture.width, min(top + STRIP_ROWS, picture.height))
        strip = picture.image.crop(box)
        strip.putalpha(picture.coverage.crop(box))
        ground = Image.new("RGBA", strip.size, (*background, 255))
        flat.paste(Image.alpha_composite(ground, strip).convert("RGB"), box)
    return flat


def check_growth(size: Size, target: Size) -> None:
    """Raises RequestError for a picture that `resize` would refuse."""
    if target[0] * target[1] > MOST_PIXELS:
        raise RequestError(
            f"a picture of {size[0]} x {size[1]} would have to become {target[0]} x {target[1]}",
            hint="cut it into pieces that are less long and thin",
        )


@step
def resize(image: Image.Image, size: Size, filter: Filter) -> Image.Image:
    """Stretched or shrunk to a size; shrinking averages all pixels (no aliasing). An equal size changes nothing."""
    if size == image.size:
        return image
    check_growth(image.size, size)
    return image.resize(size, _FILTERS[filter])


def pad(image: Image.Image, size: Size, *, at: tuple[int, int] = (0, 0), colour: Colour = BLACK) -> Image.Image:
    """On a larger canvas, its upper left corner at `at`."""
    left, top = at
    assert left >= 0 and top >= 0 and left + image.width <= size[0] and top + image.height <= size[1], (size, at)
    if size == image.size:
        return image
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, at)
    return canvas


@step
def pad_to_square(image: Image.Image, colour: Colour) -> Image.Image:
    """In the middle of a square as large as its longer side."""
    side = max(image.size)
    check_growth(image.size, (side, side))
    return pad(image, (side, side), at=((side - image.width) // 2, (side - image.height) // 2), colour=colour)


@step
def centre_crop(image: Image.Image, size: Size) -> Image.Image:
    """The middle of an image; black around it where the image is smaller."""
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


@step
def normalise(image: Image.Image, mean: Sequence[float], std: Sequence[float], *, scale: float = 1 / 255) -> Floats:
    """Values [height, width, 3]: (sample * scale - mean) / std in float32, as transformers rounds it.

    There are 256 samples, so each channel is looked up in a table.
    """
    scaled = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
    samples = np.asarray(image)  # [height, width, 3]
    values = np.empty(samples.shape, np.float32)
    for channel in range(3):
        table = (scaled - np.float32(mean[channel])) / np.float32(std[channel])
        np.take(table, samples[..., channel], out=values[..., channel])
    return values


@step
def patchify(values: Floats, patch: int, *, block: int = 1, frames: int = 1) -> Floats:
    """Patches [count, 3 * frames * patch * patch] of values [height, width, 3]; inside one: channel, frame, y, x.

    Patches stand row by row. With `block` > 1 blocks of block x block patches stand row by row, and the patches row by
    row in each. With `frames` > 1 each patch holds the image so many times, as if it were a film that stands still.
    """
    height, width, channels = values.shape
    step = patch * block
    assert height % step == 0 and width % step == 0, (values.shape, patch, block)
    down, across = height // step, width // step
    split = values.reshape(down, block, patch, across, block, patch, channels)
    ordered = split.transpose(0, 3, 1, 4, 6, 2, 5)  # down, across, row and column in the block, channel, y, x
    still = np.broadcast_to(ordered[:, :, :, :, :, None], (*ordered.shape[:5], frames, patch, patch))
    return np.ascontiguousarray(still).reshape(down * across * block * block, channels * frames * patch * patch)
