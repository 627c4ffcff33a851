"""WebP: only chunks of pixels and of the film reach libwebp, in a RIFF file whose length is right."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from opsin.errors import RequestError
from opsin.media.beside import LARGE_BYTES, MOST_PROFILE_BYTES, Beside, Stripped
from opsin.media.headers import MOST_PARTS, SAVE_AGAIN

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_ALPHA, _FILM = 0x10, 0x02  # flags that are kept or set; all others speak of what is cut out


def strip(data: bytes) -> Stripped:
    """The pixels, and what stands beside them."""
    beside, view = Beside(), memoryview(data)
    kept: list[bytes | memoryview] = []
    kinds = set[bytes]()
    is_simple = data[12:16] != b"VP8X"
    for kind, place, count in _chunks(data):
        end = place + count + (count & 1)
        if kind in _PIXELS:
            kinds.add(kind)
            kept.append(view[place - 8 : end])
            if end == len(data) + 1:
                kept.append(b"\0")  # many programs forget it at the end
            if is_simple:
                break
        elif kind != b"VP8X":
            _take(
                kind,
                data[place : place + min(count, MOST_PROFILE_BYTES + 1)],
                count,
                place + count <= len(data),
                beside,
            )
    if not is_simple:
        flags = data[20] & _ALPHA | (_ALPHA if b"ALPH" in kinds else 0) | (_FILM if b"ANMF" in kinds else 0)
        kept = [b"VP8X\x0a\0\0\0", bytes([flags, 0, 0, 0]), view[24:30], *kept]
    body = b"".join(kept)
    return Stripped(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, beside)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, where its body begins, and how many bytes it says to have."""
    place = 12
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            return
        count = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], place + 8, count
        place += 8 + count + (count & 1)
    raise RequestError(f"a WebP of more than {MOST_PARTS} chunks", hint=SAVE_AGAIN)


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
