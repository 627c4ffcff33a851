"""How long a picture's preparation takes beside Pillow's own decoding and resizing of the same file.

python bench/pictures.py [--megapixels 12] [--rounds 9]

Both sides run in turns in one process; printed is the median of each turn's ratio. Ours is everything from bytes to
float32 patches: limits, digest, decoding, orientation, resizing to 512 x 512, normalising, patches of 16 pixels.
Pillow's is `Image.open`, `load` and `resize`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from opsin.media import steps
from opsin.media.decode import open_picture

SIDE, PATCH = 512, 16
FILTERS: tuple[steps.Filter, ...] = ("bilinear", "bicubic", "lanczos")


def photograph(megapixels: float) -> bytes:
    """A JPEG with smooth parts, edges and grain, as a camera makes them (about 3 bits a pixel)."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(width * 3 / 4)
    dice = np.random.default_rng(1)
    coarse = dice.integers(0, 256, (height // 64, width // 64, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.DETAIL)
    grain = dice.normal(0, 6, (height, width, 1)).astype(np.float32)
    samples = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(samples).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def pillow(data: bytes, filter: Image.Resampling) -> None:
    """The least that anybody must do."""
    with Image.open(BytesIO(data)) as image:
        image.load()
        image.resize((SIDE, SIDE), filter)


def ours(data: bytes, filter: steps.Filter) -> None:
    """What a family does."""
    resized = steps.resize(steps.flatten(open_picture(data)), (SIDE, SIDE), filter)
    steps.patchify(steps.normalise(resized, (0.5,) * 3, (0.5,) * 3), PATCH)


def measure(data: bytes, filter: steps.Filter, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of Pillow and of opsin, and the median of the turns' ratios."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.process_time()
        pillow(data, Image.Resampling[filter.upper()])
        middle = time.process_time()
        ours(data, filter)
        times.append((middle - start, time.process_time() - middle))
    theirs, mine = (statistics.median(side) * 1e3 for side in zip(*times, strict=True))
    return theirs, mine, statistics.median(mine / theirs for theirs, mine in times)


def main() -> None:
    """Print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    data = photograph(options.megapixels)
    with Image.open(BytesIO(data)) as image:
        print(f"{image.width} x {image.height} pixels, {len(data) / 1e6:.1f} MB of JPEG, to {SIDE} x {SIDE}")
    for filter in FILTERS:
        theirs, mine, ratio = measure(data, filter, options.rounds)
        print(f"{filter:9} Pillow {theirs:6.1f} ms   opsin {mine:6.1f} ms   ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
