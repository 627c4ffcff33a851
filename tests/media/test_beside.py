"""What stands beside the pixels neither loses nor changes them: it is used, or left out, and then a note says so."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from beside_files import CLEAN, SIZE, bmp, exif, gif, jpeg, packed, png, webp, with_tags
from drawn import draw, encode
from made import chunk, profile
from PIL import Image
from png_files import GREY, RGB, draw_png

from opsin.errors import RequestError
from opsin.media.decode import open_picture

LARGE = 2 << 20
PIXELS = {kind: open_picture(data).pixels for kind, data in CLEAN.items()}
WIDE = profile()


def seen(data: bytes, kind: str) -> tuple[str, ...]:
    """The notes of a file that shows what the clean one does."""
    picture = open_picture(data)
    assert np.array_equal(picture.pixels, PIXELS[kind]) and picture.alpha is None
    return picture.notes


# PNG ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("extra", "note"),
    [
        (packed(b"zTXt", b"workflow", b"x" * LARGE), "zTXt"),
        (packed(b"iTXt", b"workflow", b"x" * LARGE), "iTXt"),
        (packed(b"iTXt", b"XML:com.adobe.xmp", b"x" * LARGE), "iTXt"),
        (packed(b"zTXt", b"Raw profile type exif", b"x" * LARGE), "zTXt"),
        (chunk(b"tEXt", b"workflow\0" + b"x" * LARGE), "tEXt (2097161 bytes)"),
        (chunk(b"zTXt", b"a\0\7abc"), "zTXt (6 bytes)"),
        (chunk(b"zTXt", b"XML:com.adobe.xmp\0\0no zlib"), "zTXt (26 bytes)"),
        (chunk(b"pHYs", b"\1"), "pHYs (1 bytes)"),
        (chunk(b"gAMA", b""), "gAMA (0 bytes)"),
        (chunk(b"cHRM", bytes(31)), "cHRM (31 bytes)"),
        (chunk(b"sRGB", b""), "sRGB (0 bytes)"),
        (chunk(b"acTL", b""), "acTL (0 bytes)"),
        (chunk(b"fcTL", b""), "fcTL (0 bytes)"),
        (chunk(b"tRNS", b"\0"), "tRNS (1 bytes)"),
        (chunk(b"tEXt", b"a\0b")[:-1] + b"\0", "tEXt (3 bytes)"),
        (chunk(b"tRNS", bytes(6))[:-1] + b"\7", "tRNS (6 bytes)"),
        (chunk(b"eXIf", exif(3))[:-1] + b"\7", "eXIf (26 bytes)"),
        (chunk(b"ABCD", b"abc"), "ABCD (3 bytes)"),
        (chunk(b"\x61bCD", bytes(LARGE)), "abCD (2097152 bytes)"),
    ],
)  # fmt: skip
def test_a_png_is_seen_whatever_its_chunks_hold(extra: bytes, note: str, behind: bool) -> None:
    (said,) = seen(png(after=extra) if behind else png(extra), "PNG")
    assert said.startswith(f"left out beside its pixels: {note}") and said.endswith(" bytes)")


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", [b"transparency", b"icc_profile", b"interlace", b"bbox", b"exif", b"xmp", b"gamma",
                                  b"default_image", b"duration", b"\xff\0\xff", b"", b"background"])  # fmt: skip
def test_a_text_is_never_taken_for_what_its_name_says(name: bytes, behind: bool) -> None:
    text = chunk(b"tEXt", name + b"\0" + b"1") + chunk(b"iTXt", name + b"\0\0\0\0\0" + b"0")
    assert seen(png(after=text) if behind else png(text), "PNG") == ()


@pytest.mark.parametrize("length", [0, 1, 10, 12, 40, 5000, 2**31, 2**32 - 1])
def test_a_chunk_that_lies_about_its_length_does_not_hide_the_pixels(length: int) -> None:
    data = png(chunk(b"tIME", bytes(7)), chunk(b"tEXt", b"hello\0world"))
    place = data.index(b"tEXt") - 4
    (note,) = seen(data[:place] + struct.pack(">I", length) + data[place + 4 :], "PNG")
    assert note.startswith("left out beside its pixels: tEXt (")


@pytest.mark.timeout(60)  # seconds; 1000 times 7 times 32 MB would be 220 GB
def test_looking_for_pixels_behind_a_lie_costs_little() -> None:
    lie = b"\0\0\0\x01tEXtab" + (b"\x02\0\0\0IDAT" * 7) + chunk(b"PLTE", b"abc")
    for end in (b"\xff" * (40 << 20), chunk(b"tEXt", b"") * 1_000_000):
        with pytest.raises(RequestError):
            open_picture(CLEAN["PNG"][:33] + lie * 1000 + end)


def test_a_second_header_is_left_out() -> None:
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 16, 6, 0, 0, 0))
    for data in (png(other), png(after=other)):
        assert seen(data, "PNG") == ("left out beside its pixels: IHDR (13 bytes)",)


def test_usual_remarks_need_no_note() -> None:
    usual = [chunk(b"tEXt", b"Software\0opsin"), chunk(b"pHYs", bytes(9)), chunk(b"tIME", bytes(7)),
             chunk(b"bKGD", bytes(6)), chunk(b"gAMA", bytes(4)), chunk(b"sRGB", b"\0"), chunk(b"cHRM", bytes(32)),
             chunk(b"sBIT", bytes(3)), chunk(b"hIST", bytes(6)), chunk(b"vpAg", bytes(9)), chunk(b"PLTE", bytes(9)),
             chunk(b"caBX", b"abc")]  # fmt: skip
    assert seen(png(*usual), "PNG") == ()


def test_remarks_between_the_pixels_are_left_out() -> None:
    drawn = draw_png(RGB, 8)
    between = packed(b"zTXt", b"a", b"x" * LARGE)
    picture = open_picture(drawn.file(between=between))
    assert np.array_equal(picture.pixels, drawn.colours()) and len(picture.notes) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"a\0\0" + zlib.compress(WIDE + bytes(5 << 20)), "more than 4194304 bytes are too many"),
        (b"a\0\0" + zlib.compress(WIDE)[:-5], "damaged"),
        (b"a\0\0" + WIDE, "damaged"),
        (b"a\0\1" + zlib.compress(WIDE), "packed in an unknown way"),
        (b"a", "packed in an unknown way"),
        (b"", "packed in an unknown way"),
    ],
)
def test_a_profile_that_cannot_be_unpacked_is_ignored_and_said_so(body: bytes, why: str) -> None:
    assert seen(png(chunk(b"iCCP", body)), "PNG") == (f"its colour profile was ignored: {why}",)


def test_a_large_profile_is_applied() -> None:
    small = open_picture(png(packed(b"iCCP", b"a", WIDE)))
    large = open_picture(png(packed(b"iCCP", b"a", WIDE + bytes(LARGE))))
    assert np.array_equal(small.pixels, large.pixels) and not np.array_equal(small.pixels, PIXELS["PNG"])
    assert small.notes == large.notes == ()


def test_the_first_profile_counts_and_none_behind_the_pixels() -> None:
    wide, grey = packed(b"iCCP", b"a", WIDE), packed(b"iCCP", b"a", profile(b"GRAY"))
    assert seen(png(after=wide), "PNG") == ("its colour profile was ignored: it stands behind the pixels",)
    first = open_picture(png(wide, grey))
    assert np.array_equal(first.pixels, open_picture(png(wide)).pixels)
    assert first.notes == ("its colour profile was ignored: it is a second one",)


def test_a_film_is_its_picture_however_damaged_its_frames_are() -> None:
    control = struct.pack(">IIIIIHHBB", 5, 9, 9, 40, 40, 1, 1, 0, 0)
    film = png(chunk(b"acTL", struct.pack(">II", 7, 0)), chunk(b"fcTL", control), after=chunk(b"fcTL", control) * 3)
    assert seen(film, "PNG") == ("frame 1 of 7",)
    beside = png(chunk(b"acTL", struct.pack(">II", 7, 0)), after=chunk(b"fcTL", control) + chunk(b"fdAT", b"\0\0\0"))
    assert seen(beside, "PNG") == ("frame 1 of 8",)
    assert seen(png(chunk(b"acTL", bytes(8)), chunk(b"acTL", bytes(8))), "PNG") == ()


@pytest.mark.timeout(60)  # seconds; 36 GB would be unpacked
def test_bombs_beside_the_pixels_stay_packed() -> None:
    bomb = zlib.compress(bytes(60 << 20), 9)
    chunks = [chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)]
    chunks += [chunk(b"iCCP", b"a\0\0" + bomb), chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb)]
    notes = seen(png(*chunks * 150), "PNG")
    assert "more than 4194304 bytes are too many" in notes[0] and "and 446 more" in notes[-1]


# Which way is up ------------------------------------------------------------------------------------------------------


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
RAW = b"\nexif\n  26\n" + (b"Exif\0\0" + exif(6)).hex().encode()


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"eXIf", exif(6))),
        png(after=chunk(b"eXIf", exif(6, "little"))),
        png(chunk(b"eXIf", b"Exif\0\0" + exif(6))),
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
        png(packed(b"iTXt", b"XML:com.adobe.xmp", XMP)),
        png(packed(b"zTXt", b"Raw profile type exif", RAW)),
        png(chunk(b"tEXt", b"Raw profile type exif\0" + RAW)),
        jpeg((0xE1, b"Exif\0\0" + exif(6))),
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
        jpeg((0xE1, b"Exif\0\0" + exif(6)), (0xE1, b"Exif\0\0" + bytes(60000)), (0xFE, b"hello")),
        webp((b"EXIF", exif(6))),
        webp((b"EXIF", b"Exif\0\0" + exif(6)), before=True),
        webp((b"XMP ", XMP)),
    ],
)
def test_a_picture_is_turned_as_pillow_turns_it(data: bytes) -> None:
    from PIL import ImageOps

    with Image.open(BytesIO(data)) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = open_picture(data)
    assert picture.size == (24, 40) and np.array_equal(picture.pixels, want) and not picture.notes


LOOP = b"MM\0*\0\0\0\x08\0\x02\x01\x1a\0\x05\xff\xff\xff\xff\0\0\0\x08\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"


@pytest.mark.parametrize(
    ("body", "is_damaged"),
    [(b"MM", True), (b"hello world", True), (exif(6)[:-12], True), (exif(6)[:4] + b"\xff" * 4, True), (LOOP, False),
     (exif(0), False), (exif(9), False), (exif(1) + bytes(60000), False), (exif(6).replace(b"\0\3", b"\0\2", 1), False),
     (exif(6)[:8] + b"\xff\xff" + bytes(600), True)],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_is_ignored_and_said_so(kind: str, body: bytes, is_damaged: bool) -> None:
    data = {"PNG": lambda: png(chunk(b"eXIf", body)), "JPEG": lambda: jpeg((0xE1, b"Exif\0\0" + body)),
            "WEBP": lambda: webp((b"EXIF", body))}[kind]()  # fmt: skip
    assert seen(data, kind) == (("its EXIF data was ignored: damaged",) if is_damaged else ())


# JPEG -----------------------------------------------------------------------------------------------------------------


def pieces(data: bytes, numbers: list[int], count: int) -> list[tuple[int, bytes]]:
    """A profile in pieces with these numbers."""
    step = -(-len(data) // len(numbers))
    return [(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + data[at * step : (at + 1) * step])
            for at, number in enumerate(numbers)]  # fmt: skip


def test_a_profile_may_come_in_pieces_in_any_order() -> None:
    whole = open_picture(jpeg(*pieces(WIDE, [1], 1)))
    parts = pieces(WIDE, [1, 2, 3], 3)
    for order in ((0, 1, 2), (2, 0, 1)):
        picture = open_picture(jpeg(*(parts[number] for number in order)))
        assert np.array_equal(picture.pixels, whole.pixels) and not picture.notes
    assert not np.array_equal(whole.pixels, PIXELS["JPEG"])


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (pieces(WIDE, [1, 2, 3], 3)[:2], "2 pieces came, of 3, each once"),
        (pieces(WIDE, [1, 2], 3), "2 pieces came, of 3, each once"),
        (pieces(WIDE, [1, 1], 2), "2 pieces came, of 2, each once"),
        (pieces(WIDE, [0, 1], 2), "2 pieces came, of 2, each once"),
        (pieces(WIDE, [1], 0), "1 pieces came, of 0, each once"),
        ([(0xE2, b"ICC_PROFILE\0")], "one of its pieces is empty"),
        ([(0xE2, b"ICC_PROFILE\0\1")], "one of its pieces is empty"),
        (pieces(WIDE + bytes(5 << 20), list(range(1, 101)), 100), f"{len(WIDE) + (5 << 20)} bytes are too many"),
        (pieces(bytes(9000), [1], 1), None),
    ],
)
def test_a_profile_that_lacks_pieces_is_ignored_and_said_so(parts: list[tuple[int, bytes]], why: str | None) -> None:
    (note,) = seen(jpeg(*parts), "JPEG")
    assert note.startswith("its colour profile was ignored: ") and (why is None or note.endswith(f": {why}"))


@pytest.mark.parametrize(
    ("segments", "notes"),
    [
        ([(0xE0, b"JFIF")], ("left out beside its pixels: APP0 (4 bytes)",)),
        ([(0xE0, b"JFIF\0\1")], ("left out beside its pixels: APP0 (6 bytes)",)),
        ([(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03")], ()),
        ([(0xE2, b"MPF\0" + LOOP)], ()),
        ([(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\1a")], ()),
        ([(0xED, b"Photoshop 3.0\0008BIM\xff\xff\xff")], ()),
        ([(0xEE, b"Adobe")], ()),
        ([(0xEE, b"Adobe\0")], ()),
        ([(0xFE, b""), (0xFE, b"\xff\xd8\xff\xda")], ()),
        ([(0xFE, bytes(65533))], ("left out beside its pixels: COM (65533 bytes)",)),
        ([(0xEF, bytes(65533))] * 30,
         (f"left out beside its pixels: {'APP15 (65533 bytes), ' * 3}APP15 (65533 bytes) and 26 more",)),
    ],
)  # fmt: skip
def test_a_jpeg_is_seen_whatever_its_segments_hold(segments: list[tuple[int, bytes]], notes: tuple[str, ...]) -> None:
    assert seen(jpeg(*segments), "JPEG") == notes


def test_exif_in_very_many_pieces_costs_little() -> None:
    data = jpeg(*[(0xE1, b"Exif\0\0" + exif(1) + bytes(65000))] * 900)
    seen(data, "JPEG")


def test_inverted_colours_stay_what_the_mark_of_adobe_says() -> None:
    data = encode(draw(SIZE, "CMYK"), "JPEG", quality=95)
    picture = open_picture(data)
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert np.array_equal(open_picture(data[:2] + b"\xff\xfe\0\7hello" + data[2:]).pixels, picture.pixels)


# The others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("chunks", "notes"),
    [
        ([(b"ICCP", b"")], ()),
        ([(b"ICCP", bytes(5 << 20))], ("its colour profile was ignored: 5242880 bytes are too many",)),
        ([(b"XMP ", bytes(LARGE))], ()),
        ([(b"abcd", bytes(LARGE))], ("left out beside its pixels: abcd (2097152 bytes)",)),
        ([(b"abcd", b"odd")] * 50, ()),
        ([(b"EXIF", exif(1)), (b"EXIF", exif(6)), (b"XMP ", b"")], ()),
    ],
)
def test_a_webp_is_seen_whatever_its_chunks_hold(
    chunks: list[tuple[bytes, bytes]], notes: tuple[str, ...], before: bool
) -> None:
    assert seen(webp(*chunks, before=before), "WEBP") == notes


def test_the_flags_of_a_webp_are_those_of_its_chunks() -> None:
    data = webp((b"EXIF", exif(1)))
    for flags in (0, 0x02, 0x10, 0x3E, 0xFF):
        assert seen(data[:20] + bytes([flags]) + b"\xff" * 3 + data[24:], "WEBP") == ()
    transparent = encode(draw(SIZE, "RGBA"), "WEBP")
    picture = open_picture(transparent)
    hidden = open_picture(transparent[:20] + b"\0" + transparent[21:])
    assert picture.alpha is not None and b"ALPH" in transparent
    assert np.array_equal(hidden.alpha, picture.alpha) and np.array_equal(hidden.pixels, picture.pixels)


def test_a_webp_that_ends_within_its_remarks_is_seen() -> None:
    assert seen(webp((b"XMP ", bytes(5000)))[:-900], "WEBP") == ()
    assert seen(webp((b"abcd", bytes(5000)))[:-900], "WEBP") == ("left out beside its pixels: abcd (5000 bytes)",)
    cut = webp((b"ICCP", WIDE))[:-9]
    assert seen(cut, "WEBP") == ("its colour profile was ignored: damaged",)


@pytest.mark.parametrize(
    ("extension", "notes"),
    [
        (b"!\xfe" + (b"\xff" + bytes(255)) * 9000 + b"\0", ("left out beside its pixels: comment (2304001 bytes)",)),
        (b"!\xff\x0bXMP DataXMP" + (b"\xff" + bytes(255)) * 900 + b"\0",
         ("left out beside its pixels: application (230413 bytes)",)),
        (b"!\xff\x0bNETSCAPE2.0\0", ()),
        (b"!\xff\x03abc\1a\0", ()),
        (b"!\xff\0", ()),
        (b"!\x01\x0c" + bytes(12) + b"\0", ()),
        (b"!\xf9\2\1\0\0", ("left out beside its pixels: graphic control (4 bytes)",)),
        (b"!\xf9\0", ("left out beside its pixels: graphic control (1 bytes)",)),
        (b"!\xfe\3abc\0" * 500, ()),
    ],
)  # fmt: skip
def test_a_gif_is_seen_whatever_its_extensions_hold(extension: bytes, notes: tuple[str, ...]) -> None:
    assert seen(gif(extension), "GIF") == notes


def test_the_transparency_of_a_gif_is_that_of_its_first_frame() -> None:
    data = encode(draw(SIZE, "P+key"), "GIF", transparency=3)
    picture = open_picture(data)
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(picture.alpha, np.asarray(image.convert("RGBA"))[..., 3])
    at = 13 + (3 << (data[10] & 7) + 1)
    again = open_picture(data[:at] + b"!\xf9\4\1\0\0\x05\0" + data[at:])
    assert np.array_equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("packing", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize(
    ("entry", "notes"),
    [
        ((700, 1, LARGE, 8), ()),
        ((34675, 7, LARGE, 8), ("its colour profile was ignored: damaged",)),
        ((34675, 7, 0, 0), ()),
        ((34665, 4, 1, 8), ()),
        ((34665, 4, 1, 2**32 - 1), ()),
        ((34853, 4, 1, 4), ()),
        ((282, 5, 1, 2**32 - 1), ()),
        ((282, 2, 4, 0), ()),
        ((305, 2, 2**32 - 1, 2**32 - 1), ()),
        ((33432, 2, 10**6, 8), ()),
        ((40000, 99, 5, 5), ()),
        ((48129, 3, 1, 1), ()),
        ((301, 3, 768, 8), ()),
        ((37724, 7, 5000, 8), ()),
    ],
)
def test_a_tiff_is_seen_whatever_its_tags_say(
    entry: tuple[int, int, int, int], notes: tuple[str, ...], packing: str
) -> None:
    data = encode(draw(SIZE), "TIFF", compression=packing)
    assert seen(with_tags(data, entry), "TIFF") == notes


def test_a_tiff_is_turned_as_its_tag_says() -> None:
    data = encode(draw(SIZE), "TIFF")
    for number in range(1, 9):
        with Image.open(BytesIO(with_tags(data, (274, 3, 1, number)))) as image:
            want = np.asarray(image.convert("RGB"))
        assert np.array_equal(open_picture(with_tags(data, (274, 3, 1, number))).pixels, want)
    assert seen(with_tags(data, (274, 3, 1, 77)), "TIFF") == ()
    assert seen(with_tags(data, (274, 2, 0, 0)), "TIFF") == ()


def test_an_avif_is_seen_whatever_its_exif_holds() -> None:
    camera = Image.Exif()
    camera[0x010F] = "here it is"
    whole = encode(draw(SIZE), "AVIF", exif=camera)
    directory = max(whole.find(b"MM\0*"), whole.find(b"II*\0"))
    assert directory > 0
    pixels = open_picture(whole).pixels
    for damaged in (b"MM\0*\xff\xff\xff\xff", b"XX\0*\0\0\0\x08", bytes(8), b"\xff" * 8):
        picture = open_picture(whole[:directory] + damaged + whole[directory + 8 :])
        assert np.array_equal(picture.pixels, pixels) and not picture.notes
        lost = whole[: directory - 10] + damaged + whole[directory - 2 :]  # where in the item it begins
        assert np.array_equal(open_picture(lost).pixels, pixels)


@pytest.mark.parametrize("head", [40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("odd", [{}, {"gap": 1001}, {"resolution": 2**32 - 1}, {"important": 2**31}, {"reserved": 7},
                                 {"bytes": 3}, {"colours": 5}])  # fmt: skip
def test_a_bmp_is_seen_whatever_its_header_says_beside_the_pixels(head: int, odd: dict[str, int]) -> None:
    assert seen(bmp(head, **odd), "BMP") == ()


def test_what_an_image_in_memory_says_of_transparency_is_only_taken_if_it_is_one() -> None:
    image = draw(SIZE)
    for strange in ("1", 3.5, None, [1], b"abc", (1, 2), (1, 2, 300), -1, 2**70):
        image.info["transparency"] = strange
        assert np.array_equal(open_picture(image).pixels, np.asarray(draw(SIZE)))
    grey = draw_png(GREY, 8)
    assert open_picture(Image.open(BytesIO(grey.file()))).size == (13, 11)
