"""Pictures that tests draw: the same for the same arguments, with edges, gradients and noise."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "LA", "RGBA", "P", "P+key", "CMYK", "I;16", "1", "RGB+key", "PA")
# width, height: usual ones, thin ones, exactly one tile and a pixel more or less, large ones
SIZES = [
    (320, 240), (240, 320), (1, 1), (1, 60), (60, 1), (2, 3), (700, 28), (28, 700), (512, 512), (513, 512),
    (511, 513), (336, 336), (337, 336), (896, 896), (1600, 1201), (64, 65), (100, 100), (29, 27), (1024, 300),
]  # fmt: skip


def draw(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of a mode; "P+key" is a palette with a transparent colour, "RGB+key" has one in RGB."""
    dice = np.random.default_rng([seed, *size])
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    planes = np.stack([x, y, (x + 2 * y) % 256, 255 - np.abs(x - y)], -1)
    planes[(x // 40 + y // 40) % 3 == 0] *= 0.3
    samples = np.clip(planes + dice.normal(0, 25, planes.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(samples[..., :3])
    match mode:
        case "RGBA":
            return Image.fromarray(samples)
        case "LA":
            return Image.merge("LA", (image.convert("L"), Image.fromarray(samples[..., 3])))
        case "P" | "P+key":
            palette = image.quantize(16)
            if mode == "P+key":
                palette.info["transparency"] = 3
            return palette
        case "PA":
            return image.quantize(16).convert("PA")
        case "I;16":
            return Image.fromarray(samples[..., 0].astype(np.uint16) * 257)
        case "RGB+key":
            image.info["transparency"] = image.getpixel((0, 0))
            return image
    return image.convert(mode)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    """A file's bytes."""
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()
