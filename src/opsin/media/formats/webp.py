"""WebP: only chunks of pixels and of the film reach libwebp, in a RIFF file whose length is right."""

from __future__ import annotations

import struct

from opsin.media.beside import LARGE_BYTES, MOST_PROFILE_BYTES, Beside, Stripped

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_KEPT_FLAGS = 0x12  # alpha, film


def strip(data: bytes) -> Stripped:
    """The pixels, and what stands beside them."""
    beside, view, place = Beside(), memoryview(data), 12
    kept: list[bytes | memoryview] = []
    is_simple = data[12:16] != b"VP8X"
    while place + 8 <= len(data) and not (is_simple and kept):
        kind, count = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + count
        if kind in _PIXELS:
            kept.append(view[place : end + (count & 1)])
            if end & 1 and end == len(data):
                kept.append(b"\0")  # many programs forget it at the end
        elif kind == b"VP8X" and not kept:
            size = view[place + 12 : place + 18]
            kept += [b"VP8X\x0a\0\0\0", bytes([data[place + 8] & _KEPT_FLAGS, 0, 0, 0]), size]
        else:
            _take(kind, data[place + 8 : min(end, place + 8 + MOST_PROFILE_BYTES + 1)], count, end <= len(data), beside)
        place = end + (count & 1)
    body = b"".join(kept)
    return Stripped(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, beside)


def _take(kind: bytes, body: bytes, count: int, is_whole: bool, beside: Beside) -> None:
    if kind == b"ICCP" and beside.profile is None:
        if not is_whole or len(body) > MOST_PROFILE_BYTES:
            beside.leave_out_profile(f"{count} bytes are too many" if is_whole else "damaged")
        else:
            beside.profile = body
    elif kind == b"EXIF" and not beside.exif:
        beside.exif = body
    elif kind == b"XMP " and not beside.xmp:
        beside.xmp = body
    elif count > LARGE_BYTES or not is_whole:
        beside.leave_out(kind.decode("latin-1"), count)
