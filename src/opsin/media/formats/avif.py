"""AVIF: its EXIF is hidden from Pillow, which ends at a damaged one. What is up stands in the picture's own boxes."""

from __future__ import annotations

import re

from opsin.media.beside import Beside, Stripped

_MOST_BYTES = 1 << 16  # of the boxes at the beginning
_EXIF_ITEM = re.compile(rb"(infe(?:\x02\0\0[\0\1]..|\x03\0\0[\0\1]....)..)Exif", re.DOTALL)


def strip(data: bytes) -> Stripped:
    """The same file, in which no item is called EXIF."""
    start = _EXIF_ITEM.sub(rb"\1skip", data[:_MOST_BYTES])
    return Stripped(data if start == data[:_MOST_BYTES] else start + data[_MOST_BYTES:], Beside())
