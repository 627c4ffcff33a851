"""Bytes, a path, an image or an array becomes a Picture. Whatever strangers send: a Picture or a RequestError."""

from __future__ import annotations

import os
from io import BytesIO
from struct import error as StructError  # noqa: N812 - the module calls it just "error"
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from opsin.errors import FieldError, OpsinError, RequestError
from opsin.media.beside import Stripped
from opsin.media.colour import to_rgb
from opsin.media.files import Readable, is_readable, read_open, read_path
from opsin.media.formats import STRIP
from opsin.media.headers import MOST_COUNTED, SAVE_AGAIN, PictureHeader, read_header
from opsin.media.limits import PictureLimits
from opsin.media.picture import Picture, digest_of_file, digest_of_pixels

Source = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | Image.Image | npt.NDArray[np.generic] | Picture
)
# Pillow knows what was imported. Asked for a format that it does not know yet, it would import all forty.
PLUGINS = (
    *(AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin),
    *(PngImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
OWN_PIXELS = ("JPEG", "MPO")  # of these, Pillow's object holds pixels and little else once they are decoded
DEEP_LOW = "RGB;16L"
CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def open_picture(source: Source, limits: PictureLimits | None = None, *, name: str | None = None) -> Picture:
    """Decode a picture; a Picture is given back as it is.

    Args:
        source: a file's bytes; a path (`~` is the home folder); a file open for reading, or a BytesIO, which is read
            from its beginning where it can go back; a Pillow image; or an array [height, width] or [height, width,
            channels] of uint8, or of floats from 0 to 1. 1 to 4 channels are grey, grey and alpha, RGB, RGBA.
        limits: of bytes and pixels, checked before anything is decoded.
        name: what errors call it; by default its path, or "the picture".

    Raises:
        RequestError: whatever is wrong with it, beginning with its name.
    """
    if isinstance(source, Picture):
        return source
    limits = limits or PictureLimits()
    name = name or (str(os.fspath(source)) if isinstance(source, str | os.PathLike) else "the picture")
    try:
        if isinstance(source, str | os.PathLike):
            return _from_file(read_path(source, limits), limits)
        if isinstance(source, bytes | bytearray | memoryview):
            return _from_file(bytes(source), limits)
        if isinstance(source, Image.Image):
            return _from_image(source, limits)
        if isinstance(source, np.ndarray):
            return _from_array(source, limits)
        if is_readable(source):
            return _from_file(read_open(source, limits), limits)
        hint = "give bytes, a path, an open file, a Pillow image or a NumPy array"
        raise RequestError(f"a {type(source).__name__} is no picture", hint=hint)
    except RequestError as error:
        raise FieldError(name, error.message, hint=error.hint) from error.__cause__


def _from_file(data: bytes, limits: PictureLimits) -> Picture:
    if not data:
        raise RequestError("an empty file", hint="send the picture's bytes")
    limits.check_bytes(len(data))
    header = read_header(data, limits)
    stripped = _strip(data, header.format)
    try:
        with Image.open(BytesIO(stripped.data if stripped else data), formats=[header.format]) as image:
            limits.check_size(image.size)
            image.load()
            notes = _frame_notes(image, header)
            seen = _as_said(image, stripped) if stripped else image
            rgb, coverage, more = to_rgb(seen, stripped.beside if stripped and header.format != "AVIF" else None)
            if rgb is image and header.format not in OWN_PIXELS:
                rgb = image.copy()
    except OpsinError:
        raise
    except MemoryError as error:
        raise RequestError(f"there is no memory to decode this {header.format}", hint="make it smaller") from error
    except Image.DecompressionBombError as error:
        raise RequestError(f"too many pixels: {error}", hint="make it smaller") from error
    except UnidentifiedImageError as error:
        words = f"a damaged or truncated {header.format}, or one of a kind that is not read"
        raise RequestError(words, hint=f"send all of it, or {SAVE_AGAIN}") from error
    except Exception as error:  # damaged files raise nearly anything
        hint = f"send all of it, or {SAVE_AGAIN}"
        raise RequestError(f"a damaged or truncated {header.format}: {_reason(error)}", hint=hint) from error
    return Picture(rgb, coverage, digest_of_file(data), (*notes, *more))


def _strip(data: bytes, format: str) -> Stripped | None:
    """Without what stands beside the pixels, where we cut it out."""
    try:
        return STRIP[format](data) if format in STRIP else None
    except (StructError, IndexError, OverflowError) as error:
        raise RequestError(f"a damaged or truncated {format}", hint=f"send all of it, or {SAVE_AGAIN}") from error


def _as_said(image: Image.Image, stripped: Stripped) -> Image.Image:
    """The image as its file's header says that it is."""
    beside = stripped.beside
    if beside.colours is not None and image.mode == "P":
        _, last = cast(tuple[int, int], image.getextrema())
        if last >= beside.colours:
            beside.notes.append(f"its pixels name colour {last} of a palette that has {beside.colours}")
    if beside.is_negative:
        return Image.fromarray(np.invert(np.asarray(image).astype(np.uint16)))
    if beside.key is None:
        return image
    if not beside.deep:
        image.info["transparency"] = beside.key
        return image
    # Pillow keeps one byte of 16-bit colours, so the others are decoded too: as if they stood in the other order.
    with Image.open(BytesIO(stripped.data), formats=["PNG"]) as low:
        low.tile = [tile._replace(args=DEEP_LOW) for tile in low.tile]
        low.load()
        covered = np.zeros((image.height, image.width), bool)
        for plane, shift in ((image, 8), (low, 0)):
            for channel, key in enumerate(cast(tuple[int, int, int], beside.key)):
                covered |= np.asarray(plane.getchannel(channel)) != key >> shift & 255
    image.putalpha(Image.fromarray(covered.astype(np.uint8) * np.uint8(255)))
    return image


def _reason(error: Exception) -> str:
    """Pillow's words, without places in memory."""
    return str(error).partition("<_io")[0].strip()[:200] or type(error).__name__


def _frame_notes(image: Image.Image, header: PictureHeader) -> list[str]:
    """What is said of a file with more than one picture."""
    frames = header.frames
    if frames is None:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames <= 1:
        return []
    count = f"more than {MOST_COUNTED}" if frames > MOST_COUNTED else str(frames)
    return [f"{'page' if header.format == 'TIFF' else 'frame'} 1 of {count}"]


def _from_image(image: Image.Image, limits: PictureLimits) -> Picture:
    """Of an image that somebody else holds, and may change later."""
    limits.check_size(image.size)
    try:
        image.load()
        rgb, coverage, notes = to_rgb(image)
        rgb = image.copy() if rgb is image else rgb
    except OpsinError:
        raise
    except Exception as error:  # an image may be a file that was not read yet
        raise RequestError(f"a damaged image of mode {image.mode}: {_reason(error)}", hint=SAVE_AGAIN) from error
    return Picture(rgb, coverage, digest_of_pixels(rgb, coverage), tuple(notes))


def _from_array(array: npt.NDArray[np.generic], limits: PictureLimits) -> Picture:
    shape = array.shape
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in CHANNELS:
        hint = "give [height, width] or [height, width, channels] with 1 to 4 channels"
        raise RequestError(f"an array of shape {list(shape)}", hint=hint)
    limits.check_size((shape[1], shape[0]))
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise RequestError(f"floats from {low:.6g} to {high:.6g}", hint="give floats from 0 to 1, or uint8")
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        hint = "give mask * np.uint8(255)" if array.dtype == bool else "give uint8, or floats from 0 to 1"
        raise RequestError(f"an array of {array.dtype}", hint=hint)
    plain = np.ascontiguousarray(array if len(shape) == 3 and channels > 1 else array.reshape(shape[:2]))
    rgb, coverage, _ = to_rgb(Image.fromarray(plain))
    return Picture(rgb, coverage, digest_of_pixels(rgb, coverage))
