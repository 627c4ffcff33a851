"""What strangers send instead of pictures: each gets one clear sentence, at no cost."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from drawn import draw, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from made import PNG_SIGNATURE, bombs, chunk, png
from PIL import Image

from opsin.errors import RequestError
from opsin.media import headers
from opsin.media.decode import open_picture

STARTS = [PNG_SIGNATURE, b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0WEBPVP8X", b"II*\0"]
STARTS += [b"MM\0*", b"II+\0", b"BM", b"\0\0\0\x1cftypavif\0\0\0\0", b"\0\0\0\x1cftypheic", b"", b"<svg", b"%PDF-1.7"]


def refusal(source: object) -> str:
    """What is said."""
    with pytest.raises(RequestError) as refused:
        open_picture(source)
    assert refused.value.hint and refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b" \n<!DOCTYPE html><html>404</html>", "a web page, not a picture that can be read"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "a video"),
        (b"GGUF\3\0\0\0", "a GGUF model"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a RIFF file that is not WebP"),
        (b"data:image/png;base64,AAAA", "a data: URL"),
        (b"hello", "5 bytes of an unknown kind"),
        (PNG_SIGNATURE, "the file ends within its header"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG without a size"),
        (png(0, 5, 8, 2, b""), "0 x 5 pixels: there is nothing to see"),
        (PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 9, 0, 0, 0)), "a damaged or truncated PNG"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, words: str) -> None:
    assert refusal(data).startswith(f"the picture: {words}")


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(draw((9, 9)), "PNG"))
    assert open_picture(path).size == (9, 9)
    path.write_text("<html>")
    assert refusal(path) == f"{path}: a web page, not a picture that can be read"


def test_formats_that_are_not_listed_stay_closed() -> None:
    for kind in ("PPM", "TGA", "PCX", "ICO", "JPEG2000", "EPS", "PDF", "SGI", "DDS"):
        assert "not a picture that can be read" in refusal(encode(draw((32, 32)), kind))


def test_decoders_of_other_formats_are_never_loaded() -> None:
    # Saving loads them all: files are made in a process of their own.
    made = {kind: encode(draw((9, 9)), kind) for kind in ("WEBP", "AVIF", "TIFF", "JPEG", "PNG", "GIF", "BMP")}
    program = f"""
import sys
from opsin.media.decode import open_picture
for data in {list(made.values())!r}:
    open_picture(data)
print(*sorted(name[4:-11] for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= {"Avif", "Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP"}


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.png")
    assert "not a file" in refusal(tmp_path)
    assert "cannot be read" in refusal("a\0b.png")
    assert "a URL, not a path" in refusal("https://example.org/cat.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refusal(tmp_path / "pipe.png")


def test_other_things_are_no_pictures() -> None:
    for source in (None, 5, ["a.png"], object()):
        assert "is no picture" in refusal(source)


def test_an_image_whose_file_is_damaged_is_refused() -> None:
    image = Image.open(io.BytesIO(encode(draw((200, 200)), "JPEG")[:3000]))
    assert "a damaged image of mode RGB" in refusal(image)


@pytest.mark.parametrize("kind", bombs())
def test_a_bomb_takes_no_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bombs()[kind])
    program = """
import resource, sys
from opsin.media.decode import open_picture
from opsin.errors import RequestError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_picture(sys.argv[1])
except RequestError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    kilobytes, _, words = run.stdout.partition(" ")
    assert int(kilobytes) < 12_000, run.stdout
    assert "30000 x 30000 pixels are 900 million, at most 64" in words or "tiles of 900000000 pixels" in words


def test_a_jpeg_of_a_thousand_scans_is_refused_at_once() -> None:
    data = encode(draw((64, 64)), "JPEG", progressive=True)
    assert open_picture(data).size == (64, 64)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 12)]
    bomb = data[:-2] + scan * 1000 + data[-2:]
    assert "a JPEG of more than 100 scans" in refusal(bomb)


def test_the_scans_of_a_preview_or_of_remarks_do_not_count() -> None:
    data = encode(draw((64, 64)), "JPEG", comment=b"\xff\xda" * 500)
    assert open_picture(data + data * 3).size == (64, 64)


def first_block(gif: bytes) -> int:
    """Where a GIF's colour table ends."""
    return 13 + (3 << (gif[10] & 7) + 1)


@pytest.mark.timeout(120)
def test_files_of_countless_small_parts_are_refused_at_once() -> None:
    assert "a PNG of more than 50000 chunks" in refusal(png(5, 5, 8, 0, bytes(30), before=chunk(b"tEXt", b"") * 10**6))
    data = encode(draw((9, 9)), "JPEG")
    assert "a JPEG of more than 50000 segments" in refusal(data[:2] + b"\xff\xfe\0\2" * 10**6 + data[2:])
    gif = encode(draw((9, 9), "P"), "GIF")
    at = first_block(gif)
    assert "a GIF without a frame near its beginning" in refusal(gif[:at] + b"!\xfe\1a\0" * 10**6 + gif[at:])
    assert "a GIF without a frame" in refusal(gif[:at] + b"!\xfe" + b"\1a" * 10**6 + b"\0" + gif[at:])
    long_remark = b"!\xfe" + (b"\xff" + bytes(255)) * 1000 + b"\0"
    assert open_picture(gif[:at] + long_remark * 99 + gif[at:]).size == (9, 9)
    run_lengths = b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 54, 40, 9, 9, 1, 8, 1, 0, 0, 0, 0, 0) + bytes(2 << 20)
    assert "a run-length BMP of more than 1048576 bytes" in refusal(run_lengths)
    webp = encode(draw((9, 9), "RGBA"), "WEBP")
    assert "a WebP of more than 50000 chunks" in refusal(webp[:30] + b"abcd\0\0\0\0" * 10**6 + webp[30:])


def test_frames_without_end_are_not_counted_to_the_end() -> None:
    gif = encode(draw((9, 9), "P"), "GIF")
    frame = gif[first_block(gif) : -1]
    picture = open_picture(gif[:-1] + frame * 50_000 + b";")
    assert picture.notes == ("frame 1 of more than 1000",)
    page = encode(draw((9, 9)), "TIFF")
    assert headers.read_header(page, headers.PictureLimits()).frames == 1


@given(st.sampled_from(STARTS), st.binary(max_size=300))
@settings(max_examples=400)
def test_any_bytes_are_a_picture_or_a_refusal(start: bytes, rest: bytes) -> None:
    try:
        picture = open_picture(start + rest)
    except RequestError as error:
        assert error.message.startswith("the picture: ") and error.hint
    else:
        assert picture.pixels.shape == (picture.height, picture.width, 3)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8, 16, 3]), st.integers(0, 7))
def test_any_header_of_a_png_is_checked_before_its_pixels(width: int, height: int, depth: int, colour: int) -> None:
    said = refusal(png(max(width, 40), max(height, 40), depth, colour, b""))
    assert "pixels" in said or "damaged or truncated PNG" in said
