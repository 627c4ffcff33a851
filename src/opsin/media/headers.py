"""What a file's first bytes say: its kind, its size, and whether it would cost more work than its pixels are worth.

Reads headers alone, in bounded time, and decodes nothing. Sizes are checked before Pillow sees a byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import error as StructError  # noqa: N812 - the module calls it just "error"
from struct import unpack_from

from opsin.errors import RequestError
from opsin.media.limits import PictureLimits, Size

MOST_SCANS = 100  # of a JPEG: each passes over all pixels; ten are usual
MOST_PARTS = 50_000  # chunks or segments of one file: each costs Pillow a turn of a Python loop
MOST_COUNTED = 1000  # frames of an animation: who has more is said to have more
MOST_RUN_LENGTHS = 1 << 20  # bytes of a run-length BMP, which Pillow decodes in Python
SAVE_AGAIN = "save it again as PNG or JPEG"


@dataclass(frozen=True)
class PictureHeader:
    """Kind of a file by Pillow's name; its size where it is plainly said; frames where Pillow is slow to count them."""

    format: str
    size: Size | None
    frames: int | None = None
    scratch: int = 0  # pixels of the largest piece that is decoded at once


def read_header(data: bytes, limits: PictureLimits) -> PictureHeader:
    """The header of a picture that may be decoded. Raises RequestError for all else."""
    for is_kind, read in _KINDS:
        if is_kind(data):
            try:
                header = read(data)
            except (StructError, IndexError, OverflowError):
                raise RequestError("the file ends within its header", hint="send all of it") from None
            break
    else:
        raise RequestError(f"{_describe(data)}, not a picture that can be read", hint=_KNOWN)
    if header.size is not None:
        limits.check_size(header.size)
    if header.scratch > limits.pixels:
        raise RequestError(f"its tiles of {header.scratch} pixels are larger than a picture may be", hint=SAVE_AGAIN)
    return header


def is_picture(data: bytes) -> bool:
    """Whether a file begins as a picture of one of the kinds does."""
    return any(is_kind(data) for is_kind, _ in _KINDS)


_KNOWN = "send JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF"


def _describe(data: bytes) -> str:
    """In a few words, what a file that is no picture seems to be."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    brands = data[8:32] if data[4:8] == b"ftyp" else b""
    known: list[tuple[bool, str]] = [
        (start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")), "a web page"),
        (b"<svg" in start, "an SVG drawing"),
        (start.startswith((b"<?xml", b"<")), "a text with markup"),
        (start.startswith((b"{", b"[")), "JSON"),
        (start.startswith(b"%pdf"), "a PDF document"),
        (start.startswith((b"pk\x03\x04", b"\x1f\x8b")), "a compressed archive"),
        (start.startswith(b"gguf"), "a GGUF model"),
        (start.startswith(b"data:"), "a data: URL"),
        (any(brand in brands for brand in (b"heic", b"heix", b"mif1", b"hevc")), "a HEIC picture"),
        (bool(brands), "a video"),
        (data[:4] == b"RIFF", "a RIFF file that is not WebP"),
        (data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n" or data[:2] == b"\xff\x0a", "a JPEG XL picture"),
        (data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    ]
    return next((words for is_so, words in known if is_so), f"{len(data)} bytes of an unknown kind")


# The kinds, one by one -----------------------------------------------------------------------------------------------

_FRAME_SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


def read_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG (restarts left out) with the place of what follows it."""
    place, count = 2, 0
    while found := _MARKER.search(data, place):
        code, place = found[1][0], found.end()
        count += 1
        if count > MOST_PARTS:
            raise RequestError(f"a JPEG of more than {MOST_PARTS} segments", hint=SAVE_AGAIN)
        yield code, place
        if code not in (0x01, 0xD8, 0xD9):
            place += max(2, int.from_bytes(data[place : place + 2], "big"))


def _read_jpeg(data: bytes) -> PictureHeader:
    size: Size | None = None
    for code, place in read_segments(data):
        if code in _FRAME_SIZES:
            height, width = unpack_from(">HH", data, place + 3)
            size = (width, height)
            break
        if code == 0xDA:
            break
    if size is None:
        raise RequestError("a JPEG without a size", hint="send all of it")
    if data.count(b"\xff\xda") > MOST_SCANS and _count_scans(data) > MOST_SCANS:
        raise RequestError(f"a JPEG of more than {MOST_SCANS} scans", hint=SAVE_AGAIN)
    return PictureHeader("JPEG", size)


def _count_scans(data: bytes) -> int:
    """Scans of the first picture in the file."""
    scans = 0
    for code, _ in read_segments(data):
        if code == 0xD9:
            break
        scans += code == 0xDA
    return scans


def _read_png(data: bytes) -> PictureHeader:
    width, height = unpack_from(">II", data, 16)
    unpack_from("5B", data, 24)
    if data[12:16] != b"IHDR":
        raise RequestError(f"a PNG that begins with {data[12:16]!a} and not with IHDR", hint=SAVE_AGAIN)
    place, count, frames = 8, 0, 1
    kinds = set[bytes]()
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"acTL" and length == 8 and not kinds & {b"acTL", b"IDAT"}:
            frames = max(1, int.from_bytes(data[place + 8 : place + 12], "big"))
        elif kind == b"IDAT" and frames > 1 and not kinds & {b"IDAT", b"fcTL"}:
            frames += 1  # a picture for those who show no films, which is none of their frames
        kinds.add(kind)
        place += 12 + length
        count += 1
        if count > MOST_PARTS:
            raise RequestError(f"a PNG of more than {MOST_PARTS} chunks", hint=SAVE_AGAIN)
    return PictureHeader("PNG", (width, height), frames)


def _read_gif(data: bytes) -> PictureHeader:
    width, height = unpack_from("<HH", data, 6)
    place = 13 + table_bytes(data[10])
    frames = steps = 0
    while frames <= MOST_COUNTED and steps < 10 * MOST_PARTS and data[place : place + 1] in (b"!", b","):
        if data[place] == 0x2C:
            if not frames:  # the first frame may reach over the edge of the screen, which then grows
                left, top, frame_width, frame_height = unpack_from("<HHHH", data, place + 1)
                width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames += 1
            place += 11 + table_bytes(data[place + 9])
        else:
            place += 2
        while place < len(data) and data[place] and steps < 10 * MOST_PARTS:
            place += 1 + data[place]
            steps += 1
        place += 1
        steps += 1
    if not frames:
        raise RequestError("a GIF without a frame near its beginning", hint=SAVE_AGAIN)
    return PictureHeader("GIF", (width, height), frames)


def table_bytes(flags: int) -> int:
    """Bytes of a GIF's colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp(data: bytes) -> PictureHeader:
    (dib,) = unpack_from("<I", data, 14)
    if dib == 12:
        return PictureHeader("BMP", unpack_from("<HH", data, 18))
    width, height = unpack_from("<ii", data, 18)
    (compression,) = unpack_from("<I", data, 30)
    if compression in (1, 2) and len(data) > MOST_RUN_LENGTHS:
        raise RequestError(f"a run-length BMP of more than {MOST_RUN_LENGTHS} bytes", hint=SAVE_AGAIN)
    return PictureHeader("BMP", (abs(width), abs(height)))


def _read_webp(data: bytes) -> PictureHeader:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in unpack_from("<HH", data, 26))
    return PictureHeader("WEBP", (width, height))


def _read_tiff(data: bytes) -> PictureHeader:
    order = "<" if data[:2] == b"II" else ">"
    is_big = unpack_from(order + "H", data, 2)[0] == 43
    count_code, offset_code, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (place,) = unpack_from(order + offset_code, data, 8 if is_big else 4)
    tags: dict[int, int] = {}
    seen: set[int] = set()
    while place and place not in seen and len(seen) <= MOST_COUNTED:
        try:
            (entries,) = unpack_from(order + count_code, data, place)
            first = place + (8 if is_big else 2)
            if not seen:
                for at in range(first, first + min(entries, MOST_PARTS) * entry_bytes, entry_bytes):
                    tag, kind = unpack_from(order + "HH", data, at)
                    code = {3: "H", 4: "I", 16: "Q"}.get(kind)
                    if code:
                        tags.setdefault(tag, unpack_from(order + code, data, at + (12 if is_big else 8))[0])
            seen.add(place)
            (place,) = unpack_from(order + offset_code, data, first + entries * entry_bytes)
        except (StructError, OverflowError):  # an offset behind the end, or behind all memory
            if not seen:
                raise
            break
    size = (tags[256], tags[257]) if 256 in tags and 257 in tags else None
    return PictureHeader("TIFF", size, len(seen), tags.get(322, 0) * tags.get(323, 0))


def _read_avif(data: bytes) -> PictureHeader:
    sizes: list[Size] = [(0, 0)]
    for found in list(re.finditer(rb"ispe\0\0\0\0", data[: 1 << 16]))[:100]:
        sizes.append(unpack_from(">II", data, found.end()))
    largest = max(sizes, key=lambda size: size[0] * size[1])
    return PictureHeader("AVIF", largest if len(sizes) > 1 else None)


def _is_avif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and any(data[at : at + 4] in (b"avif", b"avis") for at in range(8, 64, 4))


_KINDS: list[tuple[Callable[[bytes], bool], Callable[[bytes], PictureHeader]]] = [
    (lambda data: data[:3] == b"\xff\xd8\xff", _read_jpeg),
    (lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _read_png),
    (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _read_gif),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _read_webp),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _read_tiff),
    (lambda data: data[:2] == b"BM" and len(data) > 14, _read_bmp),
    (_is_avif, _read_avif),
]
