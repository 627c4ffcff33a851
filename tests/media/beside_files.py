"""Clean files of every format, and the same pixels with anything beside them."""

from __future__ import annotations

import struct
import zlib

from drawn import draw, encode
from made import chunk

SIZE = (40, 24)
CLEAN = {kind: encode(draw(SIZE), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")}


def png(*chunks: bytes, after: bytes = b"") -> bytes:
    """The clean PNG with chunks before its pixels, and behind them."""
    data = CLEAN["PNG"]
    return data[:33] + b"".join(chunks) + data[33:-12] + after + data[-12:]


def packed(kind: bytes, name: bytes, plain: bytes) -> bytes:
    """A zTXt, iTXt or iCCP."""
    between = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    return chunk(kind, name + between + zlib.compress(plain))


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    """The clean JPEG with segments at its beginning."""
    data = CLEAN["JPEG"]
    return data[:2] + b"".join(b"\xff" + bytes([code]) + struct.pack(">H", 2 + len(body)) + body
                               for code, body in segments) + data[2:]  # fmt: skip


def webp(*chunks: tuple[bytes, bytes], before: bool = False) -> bytes:
    """The clean WebP, extended, with chunks behind its pixels or before them."""
    pixels = CLEAN["WEBP"][12:]
    extra = b"".join(kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1) for kind, body in chunks)
    head = b"VP8X\x0a\0\0\0\x2c\0\0\0" + (SIZE[0] - 1).to_bytes(3, "little") + (SIZE[1] - 1).to_bytes(3, "little")
    body = head + (extra + pixels if before else pixels + extra)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def gif(extensions: bytes) -> bytes:
    """The clean GIF with extensions before its frame."""
    data = CLEAN["GIF"]
    at = 13 + (3 << (data[10] & 7) + 1)
    return data[:at] + extensions + data[at:]


def blocks(body: bytes) -> bytes:
    """As GIF cuts it: blocks of at most 255 bytes, and an empty one."""
    cut = (body[at : at + 255] for at in range(0, len(body), 255))
    return b"".join(bytes([len(piece)]) + piece for piece in cut) + b"\0"


def with_tags(data: bytes, *entries: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF whose first directory has more entries: tag, kind, count, value."""
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    table = data[place + 2 : place + 2 + 12 * count] + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    rows = b"".join(sorted(table[at : at + 12] for at in range(0, len(table), 12)))
    start = len(data) + (len(data) & 1)
    directory = struct.pack("<H", count + len(entries)) + rows + bytes(4)
    return data[:4] + struct.pack("<I", start) + data[8:] + bytes(len(data) & 1) + directory


def bmp(head: int = 40, gap: int = 0, **fields: int) -> bytes:
    """The clean BMP with another header."""
    pixels = CLEAN["BMP"][54:]
    names = {"resolution": 0, "colours": 0, "important": 0, "reserved": 0, "bytes": 0} | fields
    info = struct.pack("<IiiHHIIIIII", head, *SIZE, 1, 24, 0, names["bytes"], names["resolution"], names["resolution"],
                       names["colours"], names["important"])  # fmt: skip
    start = 14 + head + gap
    body = info + b"\xab" * (head - 40 + gap) + pixels
    return b"BM" + struct.pack("<III", names["bytes"], names["reserved"], start) + body


def exif(orientation: int, order: str = "big") -> bytes:
    """A directory of one entry."""
    sign, mark = (">", b"MM\0*") if order == "big" else ("<", b"II*\0")
    return mark + struct.pack(f"{sign}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
