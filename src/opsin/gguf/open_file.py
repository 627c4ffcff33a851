"""Bytes at a place, by any thread: of a file on disk, with nothing mapped and nothing shared but the descriptor."""

from __future__ import annotations

import os
import stat
import time
from copy import copy
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

from opsin.errors import FileError

_LOOKS, _LOOK_BYTES = 32, 4096  # places at which a stamp looks
SETTLED = 10.0  # seconds; the coarsest steps of times are 2


class ByteSource(Protocol):
    """What a header and its tensors are read from: an `OpenFile`, or what would be one if it were written.

    `path` is what errors call it, `size` is in bytes.
    """

    path: Path
    size: int

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that its bytes come from, which nobody may write over."""
        ...

    def again(self) -> ByteSource:
        """The same once more, to be closed by itself."""
        ...

    def close(self) -> None: ...

    def stamp(self) -> bytes:
        """What tells it from other files: when it was written, its size, and what stands here and there."""
        ...

    def state(self) -> bytes | None:
        """What changes whenever somebody writes into it; None where that cannot be told."""
        ...

    def read_into(self, buffer: memoryview, place: int) -> None:
        """Fill `buffer` with what lies at `place`. Raises FileError where there is no more."""
        ...


class OpenFile:
    """An open file of known size that is read by place.

    `size` is the size when opened. A file that was cut short since then gives a `FileError`, never a signal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._stream = _open_regular(path)
        self.size = os.fstat(self._stream.fileno()).st_size
        self._state: tuple[tuple[int, ...], bytes] = (), b""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Itself."""
        return (self.path,)

    def again(self) -> OpenFile:
        """The same open file once more, to be closed by itself; what lies at its path meanwhile does not matter."""
        made = copy(self)
        made._stream = os.fdopen(os.dup(self._stream.fileno()), "rb", buffering=0)
        return made

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._stream.close()

    def stamp(self) -> bytes:
        """Of what is open, whatever lies at its path now. To look at all bytes would take long."""
        known = os.fstat(self._stream.fileno())
        digest = blake2b(f"{known.st_size} {known.st_mtime_ns}".encode(), digest_size=32)
        buffer = bytearray(min(_LOOK_BYTES, self.size))
        for look in range(_LOOKS):
            self.read_into(memoryview(buffer), min(self.size * look // _LOOKS, self.size - len(buffer)))
            digest.update(buffer)
        return digest.digest()

    def state(self) -> bytes | None:
        """Of what is open. None within SETTLED seconds of a change, and where systems keep no time of it (Windows).

        The system itself notes when a file was changed (ctime), and lets nobody set it. Such times have steps, so two
        changes that follow each other closely may have one: what was changed moments ago has no state yet. The stamp
        is there for file systems that lie about times.
        """
        if os.name != "posix":
            return None
        known = os.fstat(self._stream.fileno())
        if time.time() - max(known.st_mtime, known.st_ctime) < SETTLED:
            return None
        now = known.st_size, known.st_ino, known.st_mtime_ns, known.st_ctime_ns
        if self._state[0] != now:
            self._state = now, blake2b(f"{now}".encode() + self.stamp(), digest_size=32).digest()
        return self._state[1]

    def read_into(self, buffer: memoryview, place: int) -> None:
        """Fill `buffer` (bytes, contiguous) with what lies at `place`. Raises FileError if the file has no more."""
        if self._stream.closed:
            raise FileError(f"{self.path} is closed", hint="read inside the `with File.open(...)` block")
        done = 0
        while done < len(buffer):
            try:
                got = self._read_some(buffer[done:], place + done)
            except OSError as error:
                raise FileError(
                    f"{self.path}: reading at byte {place + done} failed: {error.strerror}", hint="check the disk"
                ) from error
            if got == 0:
                raise FileError(
                    f"{self.path}: the file ends at byte {place + done}, {len(buffer) - done} bytes too early",
                    hint="it was cut short or replaced while open; fetch it again",
                )
            done += got

    def _read_some(self, buffer: memoryview, place: int) -> int:
        """Read once; fewer bytes than asked for are possible, 0 is the end of the file."""
        if hasattr(os, "preadv"):
            return os.preadv(self._stream.fileno(), [buffer], place)
        with self._lock:  # Windows: the position is shared, so one thread at a time
            self._stream.seek(place)
            return self._stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]


def _open_regular(path: Path) -> BinaryIO:
    """Open `path` unbuffered, refusing what is not a regular file (opening a pipe would wait for ever)."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileError(f"{path} is a folder, not a file", hint=_about_folder(path))
        if not stat.S_ISREG(mode):
            raise FileError(f"{path} is not a regular file", hint="give the path of a .gguf file")
        return path.open("rb", buffering=0)
    except OSError as error:
        raise FileError(f"{path} cannot be opened: {error.strerror}", hint="check the path") from error
    except ValueError as error:  # a NUL in the path
        raise FileError(f"{str(path)!r} is no path: {error}", hint="check the path") from error


def _about_folder(path: Path) -> str:
    if (path / "config.json").is_file():
        return "it is a checkpoint of transformers, which goes as the model; opsin convert makes a GGUF of it"
    return "give the path of a .gguf file"
