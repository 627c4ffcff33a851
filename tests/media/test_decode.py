"""Pictures of every format and mode are what Pillow and their formats say; limits hold before anything is decoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn import draw, encode
from made import SRGB, WIDE, chunk, png, profile
from PIL import Image, ImageFile

from opsin.errors import RequestError
from opsin.media import steps
from opsin.media.decode import open_picture
from opsin.media.limits import PictureLimits

FILES = {
    "JPEG": ("JPEG", "RGB", {"quality": 90}),
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True}),
    "grey JPEG": ("JPEG", "L", {}),
    "CMYK JPEG": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {}),
    "PNG with alpha": ("PNG", "RGBA", {}),
    "grey PNG with alpha": ("PNG", "LA", {}),
    "palette PNG": ("PNG", "P+key", {}),
    "1-bit PNG": ("PNG", "1", {}),
    "WebP": ("WEBP", "RGB", {}),
    "lossless WebP with alpha": ("WEBP", "RGBA", {"lossless": True}),
    "GIF": ("GIF", "P", {}),
    "TIFF": ("TIFF", "RGB", {}),
    "compressed TIFF": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "CMYK TIFF": ("TIFF", "CMYK", {}),
    "BMP": ("BMP", "RGB", {}),
    "AVIF": ("AVIF", "RGB", {}),
    "AVIF with alpha": ("AVIF", "RGBA", {}),
}
every_file = pytest.mark.parametrize("kind", FILES)


def file(kind: str, size: tuple[int, int] = (64, 40)) -> bytes:
    """One of the files above."""
    format, mode, options = FILES[kind]
    return encode(draw(size, mode), format, **options)


@every_file
def test_a_file_is_decoded_as_pillow_does(kind: str, tmp_path: Path) -> None:
    data = file(kind)
    path = tmp_path / "picture.bin"  # its name says nothing
    path.write_bytes(data)
    with Image.open(path) as image:
        want = np.asarray(image.convert("RGBA"))
    for picture in (open_picture(data), open_picture(path), open_picture(str(path)), open_picture(memoryview(data))):
        assert picture.size == (64, 40) and picture.image.mode == "RGB" and not picture.notes
        assert np.array_equal(picture.pixels, want[..., :3])
        if picture.alpha is None:
            assert (want[..., 3] == 255).all()
        else:
            assert np.array_equal(picture.alpha, want[..., 3])


@every_file
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (257, 255)])
def test_thin_pictures_are_pictures(kind: str, size: tuple[int, int]) -> None:
    assert open_picture(file(kind, size)).pixels.shape == (size[1], size[0], 3)


@every_file
def test_a_truncated_file_is_refused_and_never_half_a_picture(kind: str) -> None:
    data = file(kind, (200, 150))
    whole = open_picture(data)
    refused = 0
    for share in (0.02, 0.3, 0.6, 0.9, 0.97):
        try:
            picture = open_picture(data[: int(len(data) * share)])
        except RequestError as error:
            refused += 1
            assert error.message.startswith("the picture: ") and error.hint
            assert "0x7f" not in error.message, "an address in memory helps nobody"
        else:
            assert np.array_equal(picture.pixels, whole.pixels)
    assert refused >= 4
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright(kind: str, orientation: int) -> None:
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[32:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(turned)), kind, exif=exif, quality=95)
    picture = open_picture(data)
    assert picture.size == (32, 48)
    assert np.abs(picture.pixels[8::16, 8::16].astype(int) - upright[8::16, 8::16]).max() < 25
    opened = open_picture(Image.open(BytesIO(data)))
    assert np.array_equal(opened.pixels, picture.pixels)


def test_colours_of_another_profile_become_those_of_srgb() -> None:
    colour = np.array([200, 120, 40])
    linear = np.linalg.inv(SRGB) @ WIDE @ (colour / 255) ** 1.8
    want = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055)
    data = encode(Image.new("RGB", (5, 4), tuple(colour)), "PNG", icc_profile=profile())
    assert np.abs(open_picture(data).pixels - want).max() <= 1.5
    assert np.abs(colour - want).max() > 15


def test_grey_and_transparent_pictures_have_profiles_too() -> None:
    grey = Image.merge("LA", (Image.new("L", (3, 3), 100), Image.new("L", (3, 3), 77)))
    picture = open_picture(encode(grey, "PNG", icc_profile=profile(b"GRAY", gamma=1.0)))
    assert np.abs(picture.pixels.astype(int) - 168).max() <= 1 and (picture.alpha == 77).all()


def test_a_profile_that_says_srgb_changes_nothing() -> None:
    image = draw((30, 20))
    data = encode(image, "PNG", icc_profile=profile(name=b"sRGB IEC61966-2.1"))
    assert np.array_equal(open_picture(data).pixels, np.asarray(image)) and not open_picture(data).notes


@pytest.mark.parametrize(
    "damaged", [b"no profile", profile()[:200], profile(b"CMYK"), profile(b"GRAY"), bytes(5 << 20)]
)
def test_a_broken_profile_is_ignored_and_said_so(damaged: bytes) -> None:
    image = draw((30, 20))
    picture = open_picture(encode(image, "WEBP", lossless=True, icc_profile=damaged))
    assert np.array_equal(picture.pixels, np.asarray(image))
    assert len(picture.notes) == 1 and picture.notes[0].startswith("its colour profile was ignored: ")


def test_a_profile_for_other_colours_is_called_so() -> None:
    picture = open_picture(encode(draw((30, 20)), "PNG", icc_profile=profile(b"GRAY")))
    assert picture.notes == ("its colour profile was ignored: it is for 'GRAY', the picture is RGB",)


def test_sixteen_bits_lose_their_low_byte() -> None:
    samples = np.array([[0, 255, 256, 32767, 32768, 65535]], ">u2")
    grey = open_picture(png(6, 1, 16, 0, b"\0" + samples.tobytes()))
    assert grey.pixels[0, :, 0].tolist() == [0, 0, 1, 127, 128, 255]
    rgb = open_picture(png(2, 1, 16, 2, b"\0" + samples.tobytes()))
    assert rgb.pixels.tolist() == [[[0, 0, 1], [127, 128, 255]]]


def test_a_transparent_value_of_sixteen_bits() -> None:
    samples = np.array([[7, 8]], ">u2").tobytes()
    picture = open_picture(png(2, 1, 16, 0, b"\0" + samples, before=chunk(b"tRNS", b"\0\x08")))
    assert picture.alpha is not None and picture.alpha.tolist() == [[255, 0]]


def test_floats_are_from_0_to_1_or_to_255() -> None:
    def opened(*values: float) -> list[int]:
        return open_picture(encode(Image.fromarray(np.array([values], np.float32)), "TIFF")).pixels[0, :, 0].tolist()

    assert opened(0, 0.25, 0.5, 1) == [0, 64, 128, 255]
    assert opened(0, 1.5, 254.7) == [0, 1, 254]
    for values in ([-1, 0], [0, 256], [float("nan"), 1], [float("inf"), 1]):
        with pytest.raises(RequestError, match="pixels (from|that are no numbers)"):
            opened(*values)


def test_whole_numbers_of_32_bits_are_refused_where_they_do_not_fit() -> None:
    fitting = Image.fromarray(np.array([[0, 255]], np.int32))
    assert open_picture(encode(fitting, "TIFF")).pixels[0, :, 0].tolist() == [0, 255]
    with pytest.raises(RequestError, match="32-bit pixels from 0 to 256"):
        open_picture(encode(Image.fromarray(np.array([[0, 256]], np.int32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_seen_and_said_to_be(kind: str) -> None:
    word = "page" if kind == "TIFF" else "frame"
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    picture = open_picture(data)
    assert picture.notes == (f"{word} 1 of 3",)
    assert np.abs(picture.pixels.astype(int) - (255, 0, 0)).max() < 20


def test_an_opaque_alpha_channel_is_dropped() -> None:
    image = draw((30, 20)).convert("RGBA")
    picture = open_picture(encode(image, "PNG"))
    assert picture.alpha is None and np.array_equal(picture.pixels, np.asarray(image)[..., :3])


# Who it is ------------------------------------------------------------------------------------------------------------


def test_equal_bytes_are_one_picture_and_other_bytes_another() -> None:
    data = file("JPEG")
    first, again, other = open_picture(data), open_picture(bytearray(data)), open_picture(file("PNG"))
    assert first.digest == again.digest and len(first.digest) == 16
    assert first.digest != other.digest
    assert first.digest != open_picture(data + b"\0").digest


def test_images_and_arrays_of_equal_pixels_are_one_picture() -> None:
    image = draw((30, 300))
    samples = np.asarray(image)
    digests = {open_picture(source).digest for source in (image, samples, samples[::1].copy(), image.convert("RGBA"))}
    assert len(digests) == 1
    changed = samples.copy()
    changed[299, 29, 2] ^= 1
    sideways = samples.reshape(30, 300, 3)
    hole = np.dstack([samples, np.full(samples.shape[:2], 255, np.uint8)])
    hole[0, 0, 3] = 254
    assert len(digests | {open_picture(source).digest for source in (changed, sideways, hole)}) == 4


def test_a_picture_is_given_back_itself() -> None:
    picture = open_picture(file("PNG"))
    assert open_picture(picture) is picture


def test_whoever_changes_an_image_later_changes_no_picture() -> None:
    image = draw((30, 20))
    picture = open_picture(image)
    image.paste((1, 2, 3), (0, 0, 30, 20))
    samples = np.zeros((4, 4, 3), np.uint8)
    black = open_picture(samples)
    samples += 9
    assert not (picture.pixels == (1, 2, 3)).all() and not black.pixels.any()


# Arrays ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4)])
def test_arrays_of_bytes_and_of_floats_are_the_same_picture(shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    picture = open_picture(samples)
    assert picture.size == (4, 5)
    wanted = samples.reshape(5, 4, -1)
    assert np.array_equal(picture.pixels, np.repeat(wanted[..., :1], 3, -1) if wanted.shape[2] < 3 else wanted[..., :3])
    assert (picture.alpha is None) == (wanted.shape[2] in (1, 3))
    for floats in (np.float32, np.float64):
        assert np.array_equal(open_picture((samples / 255).astype(floats)).pixels, picture.pixels)


def test_an_array_need_not_lie_in_order() -> None:
    samples = np.asarray(draw((30, 20)))
    assert np.array_equal(open_picture(samples[::-2, ::3]).pixels, samples[::-2, ::3])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"an array of shape \[3, 8, 8\] \(give \[height, width\]"),
        (np.zeros(8, np.uint8), r"shape \[8\]"),
        (np.zeros((0, 8, 3), np.uint8), "8 x 0 pixels: there is nothing"),
        (np.zeros((8, 8), np.int64), "an array of int64"),
        (np.full((8, 8), 255.0), "floats from 255 to 255"),
        (np.full((8, 8), np.nan), "floats from nan to nan"),
        (np.zeros((9000, 9000), np.uint8), "9000 x 9000 pixels are 81 million, at most 64"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(RequestError, match=f"^the picture: .*{words}"):
        open_picture(array)


def test_a_picture_on_white_is_what_a_family_sees() -> None:
    picture = open_picture(np.dstack([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)]))
    assert (np.asarray(steps.flatten(picture)) == 255).all()


def test_limits_are_the_callers() -> None:
    data = file("PNG")
    assert open_picture(data, PictureLimits(pixels=64 * 40, side=64, bytes=len(data))).size == (64, 40)
    for limits, words in [
        (PictureLimits(pixels=64 * 40 - 1), "64 x 40 pixels are"),
        (PictureLimits(side=63), "at most 63 a side"),
        (PictureLimits(bytes=len(data) - 1), f"{len(data)} bytes, at most"),
    ]:
        with pytest.raises(RequestError, match=words) as refused:
            open_picture(data, limits, name="messages[1].content[2]")
        assert refused.value.message.startswith("messages[1].content[2]: ") and refused.value.status == 400


def test_many_threads_decode_at_once() -> None:
    files = [file(kind, (300, 200)) for kind in FILES] * 3
    alone = [open_picture(data).pixels for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(open_picture, files))
    assert all(np.array_equal(picture.pixels, pixels) for picture, pixels in zip(together, alone, strict=True))
