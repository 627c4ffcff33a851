"""TIFFs of every kind of colour, depth and byte order show what NumPy says that they show."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from made import chunk

from opsin.errors import RequestError
from opsin.media.decode import open_picture

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = range(4)
KINDS = [(WHITE_IS_ZERO, 1, None), (BLACK_IS_ZERO, 1, None), (RGB, 3, None), (PALETTE, 1, None), (BLACK_IS_ZERO, 2, 2),
         (RGB, 4, 2), (RGB, 4, 0)]  # fmt: skip
SIZE = (13, 7)


def tiff(order: str, tags: dict[int, tuple[int, list[int]]], pixels: bytes) -> bytes:
    """One page: tag -> (kind, values); the pixels stand first."""
    sign = "<" if order == "II" else ">"
    pixels += bytes(len(pixels) & 1)
    at = 8 + len(pixels)
    table, behind = struct.pack(f"{sign}H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{sign}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = struct.pack(f"{sign}I", at + 6 + 12 * len(tags) + len(behind))
        behind += packed if len(packed) > 4 else b""
        table += struct.pack(f"{sign}HHI", tag, kind, len(values)) + (
            packed.ljust(4, b"\0") if len(packed) <= 4 else place
        )
    return order.encode() + struct.pack(f"{sign}HI", 42, at) + pixels + table + bytes(4) + behind


def packed(samples: np.ndarray, depth: int, order: str) -> bytes:
    """Rows of samples, each ending with a byte."""
    rows = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        return rows.astype("<u2" if order == "II" else ">u2").tobytes()
    bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(rows.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def file(
    order: str, photometric: int, samples: np.ndarray, depth: int, extra: int | None, palette: np.ndarray
) -> bytes:
    width, height, channels = samples.shape[1], samples.shape[0], samples.shape[2]
    pixels = packed(samples, depth, order)
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [depth] * channels), 259: (3, [1]), 262: (3, [photometric]),
            273: (4, [8]), 277: (3, [channels]), 278: (4, [height]), 279: (4, [len(pixels)])}  # fmt: skip
    if extra is not None:
        tags[338] = (3, [extra])
    if photometric == PALETTE:
        tags[320] = (3, [int(value) for value in (palette * 257).T.reshape(-1)])
    return tiff(order, tags, pixels)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(("photometric", "channels", "extra"), KINDS)
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_tiff_shows_its_samples(order: str, photometric: int, channels: int, extra: int | None, depth: int) -> None:
    if (channels > 1 and depth < 8) or (depth == 16 and (photometric == PALETTE or channels == 2)):
        pytest.skip("Pillow does not read it")
    dice = np.random.default_rng([photometric, channels, depth])
    samples, palette = dice.integers(0, 1 << depth, (*SIZE[::-1], channels)), dice.integers(0, 256, (1 << depth, 3))
    shown = samples if photometric != WHITE_IS_ZERO else (1 << depth) - 1 - samples
    eight = shown >> 8 if depth == 16 else shown * 255 // ((1 << depth) - 1)
    want = palette[samples[..., 0]] if photometric == PALETTE else eight[..., : 3 if photometric == RGB else 1]
    picture = open_picture(file(order, photometric, samples, depth, extra, palette))
    assert np.array_equal(picture.pixels, np.broadcast_to(want, picture.pixels.shape)) and not picture.notes
    if extra == 2:
        assert np.array_equal(picture.alpha, eight[..., -1])
    else:
        assert picture.alpha is None


def test_a_kind_that_is_not_read_is_not_called_damaged_alone() -> None:
    grey = np.zeros((*SIZE[::-1], 2), int)
    for data in (
        file("II", BLACK_IS_ZERO, grey, 16, 2, grey),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1" * 2 + b"\3\0\0\0\0"),
    ):
        with pytest.raises(RequestError, match="a damaged or truncated (TIFF|PNG), or one of a kind that is not read"):
            open_picture(data)
