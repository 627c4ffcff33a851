"""Feeds damaged pictures to the decoder: each must become a picture or a RequestError, soon and in little memory.

python tests/media/fuzz_pictures.py --rounds 100000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import struct
import time
import warnings
import zlib
from collections import Counter

from drawn import draw, encode
from made import png, profile
from PIL import Image

from opsin.errors import RequestError
from opsin.media import steps
from opsin.media.decode import open_picture
from opsin.media.limits import PictureLimits

LIMITS = PictureLimits(pixels=1_000_000, side=4096)
SLOW_SECONDS = 10.0
STUCK_SECONDS = 20
MOST_KILOBYTES = 400_000  # that all mutants together may add to the process
REPORT_ROUNDS = 10_000
ODD = [0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 254, 255]
ODD_WIDE = [0, 1, 2, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def make_seeds() -> list[tuple[str, bytes]]:
    """Sound files of all formats: every mode, compression, animation and profile that Pillow can write."""
    size = (37, 29)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    extra = {"exif": exif, "icc_profile": profile()}
    frames = [draw(size, seed=seed) for seed in range(3)]
    film = {"save_all": True, "append_images": frames[1:], "duration": 40}
    seeds = [("JPEG", encode(draw(size), "JPEG", **extra, comment=b"hello"))]
    seeds += [("JPEG", encode(draw(size, mode), "JPEG", progressive=True)) for mode in ("L", "CMYK", "RGB")]
    seeds += [("PNG", encode(draw(size, mode), "PNG")) for mode in ("1", "L", "LA", "P+key", "RGBA", "I;16")]
    seeds += [("PNG", encode(draw(size), "PNG", **extra)), ("PNG", encode(frames[0], "PNG", **film))]
    seeds += [("PNG", png(9, 7, 16, 6, bytes(7 * (1 + 9 * 8))))]
    seeds += [
        ("WEBP", encode(draw(size, "RGBA"), "WEBP", lossless=True)),
        ("WEBP", encode(draw(size), "WEBP", **extra)),
    ]
    seeds += [("WEBP", encode(frames[0], "WEBP", **film)), ("GIF", encode(draw(size, "P+key"), "GIF", transparency=3))]
    seeds += [("GIF", encode(frames[0], "GIF", **film)), ("BMP", encode(draw(size), "BMP"))]
    seeds += [("BMP", encode(draw(size, mode), "BMP")) for mode in ("1", "P", "RGBA")]
    seeds += [("BMP", b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 1078, 40, 9, 9, 1, 8, 1, 0, 0, 0, 0, 0)
               + bytes(1024) + b"\x09\x05\0\0\x03\x01\0\x02\x01\x01\0\x03abc\0\0\0" * 3 + b"\0\1")]  # fmt: skip
    packings = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    seeds += [("TIFF", encode(draw(size), "TIFF", compression=packing)) for packing in packings]
    seeds += [("TIFF", encode(draw(size, mode), "TIFF")) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F")]
    seeds += [("TIFF", encode(draw(size, "1"), "TIFF", compression="group4"))]
    seeds += [("TIFF", encode(frames[0], "TIFF", **film, **extra)), ("TIFF", encode(draw(size), "TIFF", big_tiff=True))]
    seeds += [("AVIF", encode(draw(size, "RGBA"), "AVIF")), ("AVIF", encode(draw(size), "AVIF", **extra))]
    return [*seeds, ("AVIF", encode(frames[0], "AVIF", **film))]


def mutate(seed: tuple[str, bytes], others: list[tuple[str, bytes]], dice: random.Random) -> bytes:
    """A damaged copy; PNGs mostly get their checksums put right again, or no damage would pass them."""
    kind, original = seed
    data = bytearray(original)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if data:
            damage(data, others, dice)
    return _mend_png(bytes(data)) if kind == "PNG" and dice.random() < 0.8 else bytes(data)


def damage(data: bytearray, others: list[tuple[str, bytes]], dice: random.Random) -> None:
    # Half of the blows fall on the header.
    place = dice.randrange(len(data)) if dice.random() < 0.5 else dice.randrange(min(len(data), 200))
    length = dice.choice((1, 2, 4, 8, 16, 64, 300))
    match dice.randrange(10):
        case 0:
            data[place] ^= 1 << dice.randrange(8)
        case 1 | 2:
            data[place] = dice.choice(ODD)
        case 3:
            number = dice.choice(ODD_WIDE).to_bytes(4, dice.choice(("little", "big")))
            data[place : place + 4] = number
        case 4:
            number = (dice.choice(ODD_WIDE) & 0xFFFF).to_bytes(2, dice.choice(("little", "big")))
            data[place : place + 2] = number
        case 5:
            del data[place : place + length]
        case 6:
            data[place:place] = data[place : place + length] * dice.choice((1, 1, 2, 50))
        case 7:
            data[place : place + length] = dice.randbytes(length)
        case 8:
            other = dice.choice(others)[1]
            start = dice.randrange(len(other))
            data[place : place + length] = other[start : start + length]
        case 9:
            del data[place:]


def _mend_png(data: bytes) -> bytes:
    """With the checksums that its chunks should have."""
    whole, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        whole += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return whole


def examine(data: bytes) -> str:
    """Open it and use the picture. Gives the outcome."""
    start = time.process_time()  # not the clock on the wall: the machine may be busy
    try:
        picture = open_picture(data, LIMITS, name="it")
    except RequestError as error:
        outcome = "refused"
        assert error.message.startswith("it: ") and error.hint, f"an error that says too little: {error}"
        assert "0x" not in error.message.replace("0x0", ""), error
    else:
        outcome = "picture"
        LIMITS.check_size(picture.size)
        assert picture.image.mode == "RGB" and picture.pixels.shape == (picture.height, picture.width, 3)
        assert picture.alpha is None or picture.alpha.shape == (picture.height, picture.width)
        steps.normalise(steps.resize(steps.flatten(picture), (16, 16), "bilinear"), (0.5,) * 3, (0.5,) * 3)
    seconds = time.process_time() - start
    assert seconds < SLOW_SECONDS, f"took {seconds:.1f} s"
    return outcome


def stop(*_: object) -> None:
    """What the watchdog calls when one mutant has taken its seconds of work: waiting for the processor is free."""
    raise BaseException(f"stuck for {STUCK_SECONDS} s")


def run(rounds: int, seed: int, *, first: int = 0) -> Counter[str]:
    """Examine so many mutants; each depends only on the seed and its number. Raises what should not happen."""
    seeds = make_seeds()
    outcomes: Counter[str] = Counter()
    signal.signal(signal.SIGVTALRM, stop)
    try:
        for number in range(first, first + rounds):
            dice = random.Random(f"{seed}/{number}")
            chosen = dice.choice(seeds)
            data = mutate(chosen, seeds, dice)
            signal.setitimer(signal.ITIMER_VIRTUAL, STUCK_SECONDS)
            try:
                outcomes[f"{chosen[0]} {examine(data)}"] += 1
            except BaseException as error:
                raise AssertionError(f"mutant {number} of seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for first in range(0, options.rounds, REPORT_ROUNDS):
        rounds = min(REPORT_ROUNDS, options.rounds - first)
        outcomes += run(rounds, options.seed, first=first)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{first + rounds} mutants, {grown >> 10} MB more at most, {time.perf_counter() - start:.0f} s", flush=True
        )
        assert grown < MOST_KILOBYTES, "a mutant took too much memory"
    print(dict(sorted(outcomes.items())))


if __name__ == "__main__":
    main()
