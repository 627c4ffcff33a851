"""PNGs of every colour type, depth and order show what zlib and NumPy say that they show."""

from __future__ import annotations

import numpy as np
import pytest
from made import chunk
from png_files import DEPTHS, GREY, GREY_ALPHA, PALETTE, RGB, RGBA, Drawn, draw_png

from opsin.errors import RequestError
from opsin.media.decode import open_picture
from opsin.media.picture import Picture

EVERY = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]


def check(picture: Picture, drawn: Drawn) -> None:
    """Colours and transparency are those of the samples."""
    assert np.array_equal(picture.pixels, drawn.colours())
    alpha = np.full(drawn.samples.shape[:2], 255) if picture.alpha is None else picture.alpha
    assert np.array_equal(alpha, drawn.alpha())


@pytest.mark.parametrize(("colour", "depth"), EVERY)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("with_key", [False, True])
def test_a_png_shows_its_samples(colour: int, depth: int, interlaced: bool, with_key: bool) -> None:
    if with_key and colour in (GREY_ALPHA, RGBA):
        pytest.skip("it has alpha")
    for seed, size in enumerate([(13, 11), (1, 1), (64, 3), (5, 40)]):
        drawn = draw_png(colour, depth, with_key=with_key, size=size, seed=seed)
        picture = open_picture(drawn.file(interlaced=interlaced))
        check(picture, drawn)
        assert not picture.notes


@pytest.mark.parametrize("depth", DEPTHS[GREY])
def test_of_a_transparent_value_only_the_bits_of_the_depth_count(depth: int) -> None:
    drawn = draw_png(GREY, depth, with_key=True)
    whole = open_picture(drawn.file())
    assert drawn.key is not None
    key, drawn.key = int(drawn.key[0]), None
    value = (key | ~((1 << depth) - 1) & 0xFFFF).to_bytes(2, "big")
    assert np.array_equal(open_picture(drawn.file(before=chunk(b"tRNS", value))).alpha, whole.alpha)


@pytest.mark.parametrize(("colour", "depth"), [pair for pair in EVERY if pair[0] != PALETTE])
@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * 5, b"\0" * 7, b"\0" * 300])
def test_a_transparency_of_the_wrong_length_is_left_out(colour: int, depth: int, body: bytes) -> None:
    drawn = draw_png(colour, depth)
    picture = open_picture(drawn.file(before=chunk(b"tRNS", body)))
    check(picture, drawn)
    assert picture.notes == (f"left out beside its pixels: tRNS ({len(body)} bytes)",)


@pytest.mark.parametrize("depth", DEPTHS[PALETTE])
def test_alphas_for_more_colours_than_the_palette_has_are_left_aside(depth: int) -> None:
    drawn = draw_png(PALETTE, depth)
    drawn.key = np.resize(np.array([9, 200, 255, 0]), 300)
    data = drawn.file()
    drawn.key = drawn.key[: 1 << depth]
    check(open_picture(data), drawn)


def test_a_transparency_behind_the_pixels_or_a_second_one_is_left_out() -> None:
    drawn = draw_png(GREY, 8)
    late = open_picture(drawn.file(after=chunk(b"tRNS", b"\0\5")))
    check(late, drawn)
    assert late.notes == ("left out beside its pixels: tRNS (2 bytes)",)
    drawn = draw_png(RGB, 8, with_key=True)
    first = open_picture(drawn.file(between=chunk(b"tRNS", bytes(6))))
    check(first, drawn)


def test_pixels_that_name_colours_that_the_palette_lacks_are_noted() -> None:
    drawn = draw_png(PALETTE, 4)
    drawn.samples[0, 0] = 15
    assert drawn.palette is not None
    drawn.palette = drawn.palette[:9]
    picture = open_picture(drawn.file())
    known = drawn.samples[..., 0] < 9
    assert np.array_equal(picture.pixels[known], drawn.palette[drawn.samples[..., 0][known]])
    assert picture.notes == ("its pixels name colour 15 of a palette that has 9",)


def test_a_palette_that_is_missing_is_said_to_be() -> None:
    drawn = draw_png(PALETTE, 4)
    palette, drawn.palette = drawn.palette, None
    assert palette is not None
    for after in (b"", chunk(b"PLTE", palette.astype(np.uint8).tobytes())):
        with pytest.raises(RequestError, match="a PNG whose pixels name colours of a palette that it lacks"):
            open_picture(drawn.file(after=after))
