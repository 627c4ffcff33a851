"""A path, or what is open for reading, becomes a file's bytes. For people's own files: strangers name none."""

from __future__ import annotations

import io
import os
from typing import Protocol

from opsin.config import expanded
from opsin.errors import RequestError

_PIECE_BYTES = 1 << 20


class ByteLimits(Protocol):
    """How long a file may be."""

    @property
    def bytes(self) -> int: ...

    def check_bytes(self, count: int) -> None: ...


class Readable(Protocol):
    """A file open for reading bytes, a BytesIO, a response: whatever has `read`."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes or fewer; none at the end."""


def is_readable(source: object) -> bool:
    """Whether it is open for reading. Wrappers (`tempfile`) have the method of what they wrap."""
    return callable(getattr(source, "read", None))


def read_path(path: str | os.PathLike[str], limits: ByteLimits, what: str = "a picture") -> bytes:
    """The bytes of a file, which shall be `what`; `~` is the home folder."""
    if isinstance(path, str) and path.startswith(("http://", "https://", "data:", "file:")):
        raise RequestError("a URL, not a path", hint="fetch it first: opsin.media.fetch")
    try:
        path = expanded(path)
        if path.exists() and not path.is_file():
            raise RequestError("not a file", hint=f"give the path of {what}")
        limits.check_bytes(path.stat().st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read: {_reason(error)}", hint=f"give the path of {what}") from error


def read_open(source: Readable, limits: ByteLimits) -> bytes:
    """All bytes from its beginning, to which it goes back where it can, as Pillow does; else from where it stands.

    So a buffer that was just written is read, and one that stands in a conversation is read again with each turn.
    It stays open.
    """
    if isinstance(source, io.TextIOBase):
        raise RequestError("a file opened as text", hint='open it with "rb"')
    if getattr(source, "closed", False) is True:
        raise RequestError("a closed file", hint="give it while it is open, or give its path")
    try:
        _rewind(source)
        data = bytearray()
        while piece := source.read(min(_PIECE_BYTES, limits.bytes + 1 - len(data))):
            if not isinstance(piece, bytes | bytearray | memoryview):
                break
            data += piece
            if len(data) > limits.bytes:
                raise RequestError(f"more than {limits.bytes} bytes", hint="give a smaller file")
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read: {_reason(error)}", hint='open it with "rb"') from error
    if isinstance(piece, str):
        raise RequestError("a file opened as text", hint='open it with "rb"')
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise RequestError(f"its read() gives {type(piece).__name__}", hint="give the file's bytes")
    if not data:
        raise RequestError("nothing is left to read", hint="keep what read() gave, and give these bytes")
    return bytes(data)


def _rewind(source: Readable) -> None:
    seek = getattr(source, "seek", None)
    try:
        if callable(seek):
            seek(0)
    except (OSError, ValueError):  # io.UnsupportedOperation is both: a pipe, a response
        pass


def _reason(error: OSError | ValueError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
