"""One file a format: cuts what stands beside the pixels out of a file. What Pillow gets then is pixels alone."""

from __future__ import annotations

from collections.abc import Callable

from opsin.media.beside import Stripped
from opsin.media.formats import avif, gif, jpeg, png, tiff, webp

STRIP: dict[str, Callable[[bytes], Stripped]] = {
    "AVIF": avif.strip, "GIF": gif.strip, "JPEG": jpeg.strip, "PNG": png.strip, "TIFF": tiff.strip, "WEBP": webp.strip,
}  # fmt: skip
