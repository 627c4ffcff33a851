"""Embeddings of media in the files of a folder: what was encoded once need not be encoded after a restart.

A file holds those of one piece of media, under a name made of the encoder and the digest. It is written beside and
renamed, and checked by a digest of its own when it is read: whatever is damaged, cut or of another size is not there.

Thread: the encoding thread's, once the model is loaded. Several processes may share a folder.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final

import numpy as np

from opsin.arrays import Floats
from opsin.errors import FileError

_HEAD: Final = Struct("<8s16sII")  # magic, digest of all behind it, rows, width
_MAGIC: Final = b"opsinEm1"
_ENDING: Final = ".embeddings"
_PART: Final = ".embeddings-part"  # while it is written, or left by a process that was killed
# No link, and no waiting at a pipe; Windows has neither of these, and text files.
_READ: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
_LOW: Final = 0.9  # of the limit: so full it is after what is old was taken out


class MediaCache:
    """At most `most` bytes of files; what was not used for longest goes first.

    Args:
        folder: made where it is not there, for its owner alone.
        encoder: what tells the encoder, and how it computes, from all others.
        width: values of an embedding.
    """

    def __init__(self, folder: Path, encoder: bytes, width: int, most: int) -> None:
        self._folder, self._encoder, self._width, self._most = folder, encoder, width, most
        self.found = 0  # since the beginning
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                """It can be written."""
        except OSError as error:
            what = f"{folder} cannot hold embeddings: {error.strerror or error}"
            raise FileError(what, hint="give a folder that can be written") from error
        self._bytes = sum(size for _, size, _ in self._files())

    def find(self, digest: bytes, rows: int) -> Floats | None:
        """Embeddings [rows, width] that were kept; None where there are none, or they are damaged."""
        path, body = self._path(digest), 4 * rows * self._width
        try:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                data = file.read(_HEAD.size + body + 1)
        except OSError:
            return None
        if data[: _HEAD.size] != self._head(data[_HEAD.size :], rows) or len(data) != _HEAD.size + body:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        self.found += 1
        return np.frombuffer(data, "<f4", offset=_HEAD.size).reshape(rows, self._width).astype(np.float32)

    def keep(self, digest: bytes, embeddings: Floats) -> None:
        """Keep [rows, width]; where the disk takes nothing more, nothing is kept."""
        body = np.ascontiguousarray(embeddings, "<f4").tobytes()
        if len(body) + _HEAD.size > self._most:
            return
        with suppress(OSError):
            self._write(self._path(digest), self._head(body, len(embeddings)) + body)
            self._bytes += _HEAD.size + len(body)
        if self._bytes > self._most:
            self._trim()

    def _write(self, path: Path, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=_PART, delete=False) as file:
            beside = Path(file.name)
            try:
                file.write(data)
                file.flush()
                beside.replace(path)
            except BaseException:
                beside.unlink()
                raise

    def _trim(self) -> None:
        """What other processes wrote counts as well."""
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= _LOW * self._most:
                return
            with suppress(OSError):
                Path(path).unlink()
            self._bytes -= size

    def _files(self) -> list[tuple[int, int, str]]:
        """When each was used last, its bytes and its path; what is not ours is left alone."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):  # somebody else took it away
                    if entry.name.endswith((_ENDING, _PART)):
                        known = entry.stat(follow_symlinks=False)
                        found.append((known.st_mtime_ns, known.st_size, entry.path))
        return found

    def _path(self, digest: bytes) -> Path:
        name = blake2b(self._encoder + digest, digest_size=20, person=b"media cache").hexdigest()
        return self._folder / (name + _ENDING)

    def _head(self, body: bytes, rows: int) -> bytes:
        return _HEAD.pack(_MAGIC, blake2b(body, digest_size=16).digest(), rows, self._width)
