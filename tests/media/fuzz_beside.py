"""Changes what stands beside the pixels, and nothing of the pixels: they must be seen as if nothing stood there.

python tests/media/fuzz_beside.py --rounds 100000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from io import BytesIO

import numpy as np
from beside_files import CLEAN, SIZE, blocks, bmp, exif, gif, jpeg, png, webp, with_tags
from drawn import draw, encode
from made import chunk
from PIL import Image

from opsin.media.decode import open_picture

PIXELS = {kind: open_picture(data).pixels for kind, data in CLEAN.items()}
PACKED_TIFF = encode(draw(SIZE), "TIFF", compression="tiff_lzw")
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="1"/></x:xmpmeta>'
MPF = (
    b"MPF\0MM\0*\0\0\0\x08\0\3\xb0\0\0\7\0\0\0\4"
    + b"0100\xb0\1\0\4\0\0\0\1\0\0\0\2\xb0\2\0\7\0\0\0\x20\0\0\0\x32"
    + bytes(40)
)
PHOTOSHOP = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
PACKED = [zlib.compress(XMP), zlib.compress(XMP * 90_000)]
NAMES = [b"Comment", b"transparency", b"icc_profile", b"interlace", b"exif", b"XML:com.adobe.xmp", b"bbox", b"gamma",
         b"Raw profile type exif", b"default_image", b"\xff", b""]  # fmt: skip
PNG_KINDS = [b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"hIST", b"bKGD", b"tIME", b"acTL",
             b"fcTL", b"eXIf", b"sPLT", b"oFFs", b"cICP", b"mDCV", b"caBX", b"PLTE", b"ABCD"]  # fmt: skip
TAGS = [
    269,
    270,
    271,
    282,
    283,
    296,
    301,
    305,
    306,
    318,
    319,
    333,
    700,
    33432,
    33723,
    34377,
    34665,
    34853,
    37724,
    40961,
    50341,
]


def body(dice: random.Random) -> bytes:
    """A sound remark of some kind, mostly damaged."""
    name = dice.choice(NAMES)
    sound = dice.choice([XMP, exif(1), b"Exif\0\0" + exif(1, "little"), MPF, PHOTOSHOP, b"JFIF\0\1\1\0\0\1\0\1\0\0",
                         b"Adobe\0d\0\0\0\0\1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, bytes(9), name + b"\0text",
                         name + b"\0\0" + dice.choice(PACKED), b"NETSCAPE2.0\3\1\0\0", bytes(65_533),
                         name + b"\0\1\0en\0\0" + PACKED[0], struct.pack(">II", 3, 0)])  # fmt: skip
    data = bytearray(sound)
    for _ in range(dice.choice((0, 0, 1, 1, 3))):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                data[place : place + 1] = bytes([dice.choice((0, 1, 127, 128, 255))])
            case 1:
                del data[place:]
            case 2:
                data[place:place] = dice.randbytes(dice.choice((1, 2, 4, 300, 30_000)))
            case 3:
                data[place : place + 4] = b"\xff" * 4
    return bytes(data[:65_533])


def mutate_png(dice: random.Random) -> bytes:
    chunks = []
    for _ in range(dice.randrange(1, 5)):
        made = chunk(dice.choice(PNG_KINDS), body(dice))
        chunks.append(made if dice.random() < 0.8 else made[:-1] + bytes([dice.randrange(256)]))
    cut = dice.randrange(len(chunks) + 1)
    return png(*chunks[:cut], after=b"".join(chunks[cut:]))


def mutate_jpeg(dice: random.Random) -> bytes:
    codes = [0xE1, 0xE2, 0xE2, 0xED, 0xE0, *range(0xE3, 0xEE), 0xEF, 0xFE]
    return jpeg(*((dice.choice(codes), plain(body(dice))) for _ in range(dice.randrange(1, 5))))


def plain(data: bytes) -> bytes:
    """What says how a JPEG's colours are stored is of the pixels."""
    return b"x" + data if data.startswith((b"JFIF\0", b"Adobe")) else data


def mutate_webp(dice: random.Random) -> bytes:
    kinds = [b"EXIF", b"XMP ", b"abcd", b"\0\0\0\0", b"ICCP"]
    chunks = [(dice.choice(kinds), body(dice)) for _ in range(dice.randrange(1, 5))]
    data = webp(*chunks, before=dice.random() < 0.5)
    return data if dice.random() < 0.8 else data[:4] + dice.randbytes(4) + data[8:]  # the length of all


def mutate_gif(dice: random.Random) -> bytes:
    made = b""
    for _ in range(dice.randrange(1, 5)):
        code = dice.choice((0xFE, 0xFF, 0x01, 0x00, 0xF9))
        made += b"!" + bytes([code]) + (b"\4" + bytes([dice.randrange(256) & 0xFE, *dice.randbytes(3)]) + b"\0"
                                        if code == 0xF9 else blocks(body(dice) * dice.choice((1, 1, 2))))  # fmt: skip
    return gif(made)


def mutate_tiff(dice: random.Random) -> bytes:
    odd = (0, 1, 2, 8, 100, 5000, 2**16, 2**31, 2**32 - 1)
    entries = [(dice.choice(TAGS), dice.choice((*range(14), 99)), dice.choice(odd), dice.choice(odd))
               for _ in range(dice.randrange(1, 6))]  # fmt: skip
    return with_tags(dice.choice((CLEAN["TIFF"], PACKED_TIFF)), *entries)


def mutate_bmp(dice: random.Random) -> bytes:
    fields = {
        name: dice.choice((0, 1, 255, 2**16, 2**31, 2**32 - 1))
        for name in ("resolution", "important", "reserved", "bytes")
    }
    return bmp(dice.choice((40, 52, 56, 64, 108, 124)), dice.choice((0, 1, 7, 5000)), **fields)


def mutate_avif(dice: random.Random) -> bytes:
    image = Image.Exif()
    image[0x010F] = "a camera"
    data = encode_avif(image.tobytes())
    place = max(data.find(b"MM\0*"), data.find(b"II*\0")) - 10
    length = dice.choice((1, 2, 4, 8, 20))
    at = place + dice.randrange(20)
    return data[:at] + dice.randbytes(length) + data[at + length :]


_AVIFS: dict[bytes, bytes] = {}


def encode_avif(remark: bytes) -> bytes:
    """Slow, so it is done once."""
    if remark not in _AVIFS:
        stream = BytesIO()
        draw(SIZE).save(stream, "AVIF", exif=remark)
        _AVIFS[remark] = stream.getvalue()
    return _AVIFS[remark]


MUTATE: dict[str, Callable[[random.Random], bytes]] = {
    "PNG": mutate_png, "JPEG": mutate_jpeg, "WEBP": mutate_webp, "GIF": mutate_gif, "TIFF": mutate_tiff,
    "BMP": mutate_bmp, "AVIF": mutate_avif,
}  # fmt: skip


def examine(kind: str, data: bytes) -> str:
    """Open it, and compare."""
    picture = open_picture(data)
    assert np.array_equal(picture.pixels, PIXELS[kind]), "other pixels"
    assert picture.alpha is None, "transparent"
    assert all(note.isprintable() and len(note) < 300 for note in picture.notes), picture.notes
    return f"{kind} {'noted' if picture.notes else 'silent'}"


def run(rounds: int, seed: int, *, first: int = 0) -> Counter[str]:
    """Examine so many; each depends only on the seed and its number. Raises what should not happen."""
    outcomes: Counter[str] = Counter()
    kinds = list(MUTATE)
    for number in range(first, first + rounds):
        dice, kind = random.Random(f"{seed}/{number}"), kinds[number % len(kinds)]
        data = MUTATE[kind](dice)
        try:
            outcomes[examine(kind, data)] += 1
        except Exception as error:
            message = f"mutant {number} of seed {seed}, {kind}: {type(error).__name__}: {error}"
            raise AssertionError(message) from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    print(run(chosen.rounds, chosen.seed, first=chosen.first))


if __name__ == "__main__":
    main()
