"""Any of Pillow's modes becomes upright RGB, with how opaque each pixel is where that is not everywhere.

What stands in the picture is kept: 16-bit samples lose their low byte (Pillow would cut all above 255 off), profiles
that are not sRGB are applied, EXIF's orientation too.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from opsin.errors import RequestError
from opsin.media.beside import MOST_PROFILE_BYTES, Beside

PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode and what a profile calls it
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, beside: Beside | None = None) -> tuple[Image.Image, Image.Image | None, list[str]]:
    """Upright RGB, the coverage (mode L) unless all is opaque, and notes. A plain RGB image is given back itself.

    `beside` is what its file said; by default what the image itself does.
    """
    if beside is None:
        profile, number = image.info.get("icc_profile"), _orientation(image)
    else:
        profile, number = beside.profile, beside.orientation()
    turn = TURNS.get(number)
    base, coverage = _split(image)
    notes = beside.said() if beside is not None else []
    if isinstance(profile, bytes) and profile:
        try:
            base = _apply_profile(base, profile)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's profile makes of the library
            notes.append(f"its colour profile was ignored: {error}")
    if base.mode != "RGB":
        base = base.convert("RGB")
    if turn is not None:
        base = base.transpose(turn)
        coverage = coverage and coverage.transpose(turn)
    if coverage is not None and coverage.getextrema() == (255, 255):
        coverage = None
    return base, coverage, notes


def _orientation(image: Image.Image) -> int:
    """EXIF's number from 1 to 8; 1 where it cannot be read."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF raises nearly anything, and upright is the best guess
        return 1
    return found if isinstance(found, int) else 1


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours, in a mode that a profile may speak of, and transparency."""
    mode, key = image.mode, _key(image)
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _narrow(image, key if isinstance(key, int) else None)
    if mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if mode == "La":
        return _split(image.convert("LA"))
    if mode in ("RGBA", "PA", "RGBa") or (key is not None and mode in ("1", "L", "P", "RGB")):
        full = image if mode == "RGBA" else image.convert("RGBA")
        return full.convert("RGB"), full.getchannel("A")
    if mode in PROFILE_SPACES:
        return image, None
    return image.convert("L" if mode == "1" else "RGB"), None


def _key(image: Image.Image) -> int | bytes | tuple[int, ...] | None:
    """What is transparent, where it is said in a form that this mode can have."""
    key = image.info.get("transparency")
    if image.mode == "P" and isinstance(key, bytes) and 0 < len(key) <= 256:
        return key
    most = 65535 if image.mode.startswith("I;16") else 255
    values: tuple[object, ...] = ()
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        values = key
    elif image.mode != "RGB" and isinstance(key, int):
        values = (key,)
    return key if values and all(isinstance(value, int) and 0 <= value <= most for value in values) else None


def _narrow(image: Image.Image, key: int | None) -> tuple[Image.Image, Image.Image | None]:
    """Grey samples of 16 or 32 bits or floats, in 8."""
    values = np.asarray(image)
    coverage = None
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise RequestError("pixels that are no numbers or infinite", hint="save it with 8 or 16 bits")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 255:
            raise RequestError(f"pixels from {low:.6g} to {high:.6g}", hint="scale them to 0..1 or to 0..255")
        grey = values * np.float32(255) + np.float32(0.5) if high <= 1 else values
    elif image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise RequestError(f"32-bit pixels from {low} to {high}", hint="save it with 8 or 16 bits")
        grey = values
    else:
        grey = values >> 8
        if key is not None:
            coverage = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    return Image.fromarray(grey.astype(np.uint8)), coverage


def _apply_profile(image: Image.Image, data: bytes) -> Image.Image:
    """The image in sRGB. Profiles that say that they are sRGB change nothing."""
    if len(data) > MOST_PROFILE_BYTES:
        raise ValueError(f"{len(data)} bytes are too many")
    profile = ImageCms.ImageCmsProfile(BytesIO(data))
    space = profile.profile.xcolor_space
    if PROFILE_SPACES.get(image.mode) != space:
        raise ValueError(f"it is for {space.strip()!r}, the picture is {image.mode}")
    if "srgb" in (profile.profile.profile_description or "").lower():
        return image
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    transform = ImageCms.ImageCmsTransform(profile, srgb, image.mode, "RGB")
    return transform.apply(image)
