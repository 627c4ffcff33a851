"""Files that no program would write: colour profiles, 16-bit PNGs, and bombs."""

from __future__ import annotations

import struct
import zlib

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Red, green and blue of a screen with wider colours than sRGB, as XYZ under D50 (rows: X, Y, Z).
WIDE = np.array([[0.5151, 0.2919, 0.1572], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def profile(space: bytes = b"RGB ", name: bytes = b"Wide", gamma: float = 1.8) -> bytes:
    """A small ICC profile, version 2: three colours, or grey, and a gamma."""
    numbers = [(int(round(v * 65536)) & 0xFFFFFFFF) for v in (0.9642, 1, 0.8249)]
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", *numbers)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78)
    tags = [(b"desc", text + bytes(-len(text) % 4)), (b"wtpt", white)]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        for letter, column in zip(b"rgb", WIDE.T, strict=True):
            fixed = [int(round(v * 65536)) & 0xFFFFFFFF for v in column]
            tags += [(bytes([letter]) + b"XYZ", b"XYZ \0\0\0\0" + struct.pack(">3I", *fixed))]
            tags += [(bytes([letter]) + b"TRC", curve)]
    place, table, body = 132 + 12 * len(tags), b"", b""
    for key, data in tags:
        table += key + struct.pack(">II", place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"test", 0x02100000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3I", *numbers)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of a PNG's."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG of raw rows (each begins with its filter byte); `before` stands in front of the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG_SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, int]], data: bytes = b"", next_page: int = 0) -> bytes:
    """A little-endian TIFF of one page: tag -> (type, value); offsets in `data` begin at 8."""
    body = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    for tag, (kind, value) in sorted(tags.items()):
        body += struct.pack("<HHI", tag, kind, 1) + struct.pack("<HH" if kind == 3 else "<I", *((value, 0)[: 5 - kind]))
    return body + struct.pack("<I", next_page)


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory."""
    huge = 30_000
    big_gif = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    big_gif += b"," + struct.pack("<HHHHB", 0, 0, huge, huge, 0) + b"\x08\x02\x01\x00\x00;"
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (huge - 1).to_bytes(3, "little") * 2
    tiled = {256: (4, 1), 257: (4, 1), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1)}
    tiled |= {322: (4, huge), 323: (4, huge), 324: (4, 8), 325: (4, 64)}
    return {
        "PNG": png(huge, huge, 8, 2, bytes(huge * 40)),
        "GIF": big_gif,
        "WebP": b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x,
        "BMP": b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 54, 40, huge, -huge, 1, 24, 0, 0, 0, 0, 0, 0),
        "TIFF": tiff({256: (4, huge), 257: (4, huge), 258: (3, 8), 259: (3, 1), 262: (3, 1)}),
        "TIFF with a huge tile": tiff(tiled, zlib.compress(bytes(1 << 22))),
        "JPEG": b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", huge, huge) + b"\x03" + bytes(9) + b"\xff\xda",
    }
