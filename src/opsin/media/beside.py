"""What a file says beside its pixels: a profile of its colours, which way is up, which colour is transparent, remarks.

The readers in `formats` cut it out before Pillow sees the file, so that nothing of it can lose or change the pixels.
What is read of it is bounded; what is large, damaged or odd is left out, and a note says so.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from struct import error as StructError  # noqa: N812 - the module calls it just "error"
from struct import unpack_from

MOST_PROFILE_BYTES = 4 << 20
MOST_REMARK_BYTES = 1 << 20  # of EXIF and XMP: what stands behind is not looked at
LARGE_BYTES = 1 << 16  # whose leaving out is worth a note
_MOST_NAMED = 4
_ORIENTATION = 0x0112
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')  # where there is no EXIF, as Pillow does
_EXIF = b"Exif\0\0"

Key = int | bytes | tuple[int, int, int]  # a grey value, the alphas of a palette, a colour


@dataclass
class Beside:
    """Filled while a file is read.

    Attributes:
        profile: of ICC, as the file has it.
        exif: with or without "Exif" before it.
        xmp: only its orientation is looked at.
        key: what is transparent, in the values of the file.
        deep: the key is a colour of 16 bits a sample.
        is_negative: grey of 16 bits in which zero is white, and Pillow leaves it so.
        colours: entries of the palette, where it may be too short.
        notes: what a person should know.
    """

    profile: bytes | None = None
    exif: bytes = b""
    xmp: bytes = b""
    key: Key | None = None
    deep: bool = False
    is_negative: bool = False
    colours: int | None = None
    notes: list[str] = field(default_factory=list)
    _left: list[str] = field(default_factory=list)

    def leave_out(self, name: str, count: int) -> None:
        """A part of so many bytes is not used."""
        self._left.append(f"{name!a} ({count} bytes)".replace("'", ""))

    def leave_out_profile(self, why: str) -> None:
        """The profile is not used."""
        self.notes.append(f"its colour profile was ignored: {why}")

    def take_packed_profile(self, packed: bytes) -> None:
        """A profile packed by zlib."""
        try:
            self.profile = unpack(packed, MOST_PROFILE_BYTES)
        except ValueError as error:
            self.leave_out_profile(str(error))

    def orientation(self) -> int:
        """From 1 to 8; 1 is upright. What cannot be read is noted."""
        try:
            found = _read_orientation(self.exif[:MOST_REMARK_BYTES])
        except (StructError, ValueError):
            self.notes.append("its EXIF data was ignored: damaged")
            found = None
        if found is None:
            said = _IN_XMP.search(self.xmp[:MOST_REMARK_BYTES])
            found = int(said[1]) if said else 1
        return found

    def said(self) -> list[str]:
        """All notes."""
        named = ", ".join(self._left[:_MOST_NAMED])
        more = f" and {len(self._left) - _MOST_NAMED} more" if len(self._left) > _MOST_NAMED else ""
        return [*self.notes, *([f"left out beside its pixels: {named}{more}"] if named else [])]


@dataclass(frozen=True)
class Stripped:
    """A file of pixels alone, and what stood beside them."""

    data: bytes
    beside: Beside


def unpack(packed: bytes, most: int) -> bytes:
    """What zlib packed, if it is whole. Raises ValueError where it is damaged or longer than `most` bytes."""
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(packed, most + 1)
    except zlib.error:
        raise ValueError("damaged") from None
    if len(plain) > most:
        raise ValueError(f"more than {most} bytes are too many")
    if not inflating.eof:
        raise ValueError("damaged")
    return plain


def _read_orientation(exif: bytes) -> int | None:
    """EXIF's number, if it has one from 1 to 8: an entry of its first directory. No other entry is read."""
    exif = exif.removeprefix(_EXIF).removeprefix(_EXIF)
    if not exif:
        return None
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        raise ValueError("neither byte order")
    (place,) = unpack_from(f"{order}I", exif, 4)
    (entries,) = unpack_from(f"{order}H", exif, place)
    for at in range(place + 2, place + 2 + 12 * entries, 12):
        tag, kind, count = unpack_from(f"{order}HHI", exif, at)
        if tag == _ORIENTATION:
            code = {1: "B", 3: "H", 4: "I"}.get(kind)
            (found,) = unpack_from(f"{order}{code}", exif, at + 8) if code and count == 1 else (None,)
            return found if found in range(1, 9) else None
    return None
