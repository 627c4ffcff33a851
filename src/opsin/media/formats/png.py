"""PNG: only IHDR, PLTE, IDAT and IEND reach Pillow.

Pillow unpacks all texts and ends at a large or damaged one, takes a text called "transparency" for transparency, and
keeps the transparent value of 2, 4 and 16 bits as it stands while it changes the pixels.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from opsin.errors import RequestError
from opsin.media.beside import LARGE_BYTES, MOST_REMARK_BYTES, Beside, Stripped, unpack
from opsin.media.headers import MOST_PARTS, SAVE_AGAIN

_SIGNATURE_BYTES = 8
_KIND = re.compile(rb"[A-Za-z]{4}")
_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7, b"acTL": 8, b"fcTL": 26}
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_FIND = re.compile(rb"PLTE|IDAT")
_MOST_LOOKS = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_GREY, _RGB, _PALETTE = 0, 2, 3  # types of colour


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    all: memoryview  # with its length, kind and checksum
    body: bytes
    is_sound: bool


def strip(data: bytes) -> Stripped:
    """The pixels, and what stands beside them."""
    depth, colour = data[24], data[25]
    reading = _Reading(depth, colour, Beside())
    kept: list[bytes | memoryview] = [data[:_SIGNATURE_BYTES]]
    at = _SIGNATURE_BYTES
    for chunk in _chunks(data):
        at += len(chunk.all)
        if reading.is_kept(chunk):
            kept.append(chunk.all)
        if chunk.kind == b"IEND":
            break
    else:
        if not reading.has_pixels:
            kept.append(data[at:])  # what is no chunk: Pillow says so
    if colour == _PALETTE and reading.has_pixels and not reading.beside.colours:
        raise RequestError("a PNG whose pixels name colours of a palette that it lacks", hint=SAVE_AGAIN)
    return Stripped(b"".join(kept), reading.beside)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """One by one, until the end or what is no chunk. Of a chunk of pixels no body is copied."""
    view, place, has_looked = memoryview(data), _SIGNATURE_BYTES, False
    for _ in range(MOST_PARTS):
        if place + 8 > len(data):
            return
        kind = data[place + 4 : place + 8]
        if not _KIND.fullmatch(kind):
            return
        end = _end(data, place)
        is_sound = kind in (b"IDAT", b"fdAT") or _is_sound(data, place)
        if not (is_sound or has_looked or kind in _PIXELS or _is_chunk(data, end)):
            end, has_looked = _find_pixels(data, place + 1), True  # it lies about its length; looking costs, so once
        body = b"" if kind in (b"IDAT", b"fdAT") else data[place + 8 : end - 4]
        yield _Chunk(kind, view[place:end], body, is_sound)
        place = end
    raise RequestError(f"a PNG of more than {MOST_PARTS} chunks", hint=SAVE_AGAIN)


def _end(data: bytes, place: int) -> int:
    return place + 12 + int.from_bytes(data[place : place + 4], "big")


def _is_sound(data: bytes, place: int) -> bool:
    """Whether a chunk is all there, with the right checksum."""
    end = _end(data, place)
    stated = int.from_bytes(data[end - 4 : end], "big")
    return end <= len(data) and zlib.crc32(memoryview(data)[place + 4 : end - 4]) == stated


def _is_chunk(data: bytes, place: int) -> bool:
    """Whether a chunk seems to begin here."""
    return bool(_KIND.fullmatch(data[place + 4 : place + 8])) and _end(data, place) <= len(data)


def _find_pixels(data: bytes, place: int) -> int:
    """Where the next sound chunk of pixels begins, looked for a few times; the end where there is none."""
    for found in islice(_FIND.finditer(data, place), _MOST_LOOKS):
        if _is_sound(data, found.start() - 4):
            return found.start() - 4
    return len(data)


@dataclass
class _Reading:
    """What was seen so far."""

    depth: int
    colour: int
    beside: Beside
    has_header: bool = False
    has_pixels: bool = False
    has_profile: bool = False

    def is_kept(self, chunk: _Chunk) -> bool:
        """Whether it is of the pixels; if not, what it says is taken or left out."""
        is_palette = chunk.kind == b"PLTE" and self.colour == _PALETTE
        if is_palette and not self.has_pixels and self.beside.colours is None:
            self.beside.colours = len(chunk.body) // 3
            return True
        self.has_pixels |= chunk.kind == b"IDAT"
        if chunk.kind in (b"IDAT", b"IEND") or (chunk.kind == b"IHDR" and not self.has_header):
            self.has_header = True
            return True
        if chunk.kind != b"fdAT" and not self._take(chunk):
            self.beside.leave_out(chunk.kind.decode(), len(chunk.body))
        return False

    def _take(self, chunk: _Chunk) -> bool:
        """Whether it was understood, or is of no matter."""
        if not chunk.is_sound:
            if chunk.kind == b"iCCP":
                self.beside.leave_out_profile("damaged")
            return chunk.kind == b"iCCP"
        if chunk.kind == b"tRNS":
            return self._take_key(chunk.body)
        if chunk.kind == b"iCCP":
            self._take_profile(chunk.body)
            return True
        if chunk.kind == b"eXIf":
            self.beside.exif = self.beside.exif or chunk.body
            return True
        if chunk.kind in _TEXTS:
            return self._take_text(chunk)
        known = chunk.kind not in _SIZES or len(chunk.body) == _SIZES[chunk.kind]
        return known and bool(chunk.kind[0] & 0x20 or chunk.kind == b"PLTE") and len(chunk.body) <= LARGE_BYTES

    def _take_key(self, body: bytes) -> bool:
        """Transparency, in the values that Pillow gives the pixels; but for colours of 16 bits."""
        beside, depth = self.beside, self.depth
        if self.has_pixels or beside.key is not None:
            return False
        values = [int.from_bytes(body[at : at + 2], "big") & (1 << depth) - 1 for at in range(0, min(len(body), 6), 2)]
        if self.colour == _GREY and len(body) == 2:
            beside.key = values[0] * 255 // ((1 << depth) - 1) if depth < 16 else values[0]
        elif self.colour == _RGB and len(body) == 6:
            beside.key, beside.deep = (values[0], values[1], values[2]), depth == 16
        elif self.colour == _PALETTE and beside.colours and body:
            beside.key = body[: min(beside.colours, 1 << depth)]
        return beside.key is not None

    def _take_profile(self, body: bytes) -> None:
        """A name, a zero, the method zero, and the packed profile."""
        if self.has_pixels or self.has_profile:
            self.beside.leave_out_profile("it stands behind the pixels" if self.has_pixels else "it is a second one")
            return
        self.has_profile = True
        _, _, packed = body.partition(b"\0")
        if packed[:1] != b"\0":
            self.beside.leave_out_profile("packed in an unknown way")
            return
        self.beside.take_packed_profile(packed[1:])

    def _take_text(self, chunk: _Chunk) -> bool:
        """Of all texts only XMP and the EXIF of older programs are read; which others there are is of no matter."""
        name, _, rest = chunk.body.partition(b"\0")
        packed = chunk.kind == b"zTXt" or (chunk.kind == b"iTXt" and rest[:1] == b"\1")
        if chunk.kind == b"iTXt":
            rest = (rest[2:].split(b"\0", 2) + [b"", b""])[2]
        elif packed:
            rest = rest[1:]
        is_xmp = name == b"XML:com.adobe.xmp" and not self.beside.xmp
        if not is_xmp and (name != b"Raw profile type exif" or self.beside.exif):
            return not packed and len(chunk.body) <= LARGE_BYTES
        try:
            text = unpack(rest, MOST_REMARK_BYTES) if packed else rest
            if is_xmp:
                self.beside.xmp = text
            else:
                self.beside.exif = bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
        except ValueError:
            return False
        return True
