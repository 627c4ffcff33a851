"""Files that hold pictures, sound or both in packets, opened by PyAV (FFmpeg), which opsin[video] brings.

Each kind has its own demuxer: FFmpeg left alone would also take lists of other files and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Final

from opsin.errors import OpsinError, RequestError

if TYPE_CHECKING:
    from av.container import InputContainer

INSTALL: Final = "install it: pip install 'opsin[video]'"
_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
MOST: Final = {"max_pixels": "64000000", "max_samples": "1048576"}  # of a frame; FFmpeg's decoders refuse more


def kind_of(data: bytes) -> str | None:
    """FFmpeg's name of the demuxer for a file that begins so; None for what is none of these."""
    if data[4:8] in _ATOMS:
        return "mp4"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "avi"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if len(data) > 188 and data[0] == data[188] == 0x47:
        return "mpegts"
    return None


@contextmanager
def opened(data: bytes, kind: str, send: str) -> Iterator[InputContainer]:
    """The container, closed at the end. FFmpeg's errors become RequestError, whose hint says what to `send`."""
    with explained(kind, send), open_container(data, kind) as container:
        yield container


def open_container(data: bytes, kind: str) -> InputContainer:
    """Nothing but these bytes is read. Raises RequestError where PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise RequestError("it is read by PyAV, which is not installed", hint=INSTALL) from error
    # Whatever a file names besides is not opened: a callable that refuses stands in place of FFmpeg's own. Options are
    # for looking what there is: who decodes gives them to the codec, too.
    # Titles that are no UTF-8 raise an error in PyAV before 19, unless it is told otherwise.
    titles = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    made: InputContainer = av.open(BytesIO(data), "r", format=kind, io_open=_refuse, options=dict(MOST), **titles)
    return made


def _refuse(*_: object) -> object:
    raise PermissionError("other files are not read")


@contextmanager
def explained(kind: str, send: str) -> Iterator[None]:
    """FFmpeg's errors, and whatever damaged files raise, as RequestError."""
    try:
        yield
    except OpsinError:
        raise
    except MemoryError as error:
        raise RequestError("there is no memory to decode it", hint="make it smaller") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise RequestError(
            f"a damaged or truncated {kind} file: {reason:.200}", hint=f"send all of it; {send}"
        ) from error
