"""A GGUF file that nobody has written: its header is made at once, the bytes of its tensors when they are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from opsin.errors import FileError
from opsin.gguf.file import File
from opsin.gguf.header import open_header
from opsin.gguf.new_tensor import Blocks, MadeRows, NewTensor
from opsin.gguf.open_file import ByteSource, OpenFile
from opsin.gguf.writer import Writable, encode_header

_PIECE = 1 << 22  # bytes that are made at once of what is made in rows


def open_unwritten(
    path: Path, metadata: Mapping[str, Writable], tensors: Iterable[NewTensor], *,
    sources: Sequence[Path] = (), close: Callable[[], None] = lambda: None,
) -> File:  # fmt: skip
    """The file that `write` would make of these, byte for byte; nothing is written.

    Args:
        path: what errors call it.
        metadata: as `write` takes it.
        tensors: as `write` takes them. One that is made whole is kept until another one is read.
        sources: the files that they are made of.
        close: called when this file, and each that `File.again` gave, is closed. It may be called again.

    Raises FileError for what `write` would refuse.
    """
    listed = list(tensors)
    header = open_header(_Header(path, encode_header(path, metadata, listed)))
    places = [info.offset for info in header.tensors.values()]
    return File(path, [replace(header, part=_Made(path, places, listed, sources, close))])


class _Header:
    """The file while its header is read. Behind it are zeros, as many as anybody wants: no tensor is looked at yet."""

    size = 1 << 62
    sources: tuple[Path, ...] = ()

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self._data = path, data

    def again(self) -> ByteSource:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def stamp(self) -> bytes:
        return b""

    def state(self) -> bytes | None:
        return None

    def read_into(self, buffer: memoryview, place: int) -> None:
        there = self._data[place : place + len(buffer)]
        buffer[:] = there + bytes(len(buffer) - len(there))


class _Made:
    """Tensors, each from its place on. Reading is safe from many threads at once."""

    def __init__(
        self, path: Path, places: Sequence[int], tensors: Sequence[NewTensor], sources: Sequence[Path],
        close: Callable[[], None],
    ) -> None:  # fmt: skip
        self.path, self.sources = path, tuple(sources)
        self._places, self._tensors = places, tensors
        self.size = max((at + tensor.nbytes for at, tensor in zip(places, tensors, strict=True)), default=0)
        self._close, self._users = close, set[object]()
        self._begin()

    def _begin(self) -> None:
        self._lock, self._user = Lock(), object()
        self._kept: tuple[NewTensor, Blocks] | None = None
        self._users.add(self._user)

    def again(self) -> ByteSource:
        made = copy(self)
        made._begin()
        return made

    def close(self) -> None:
        """The sources are closed by the last one. Finalizers come here, so there is no lock."""
        self._kept = None
        self._users.discard(self._user)
        if not self._users:
            self._close()

    def stamp(self) -> bytes:
        """Of the files that it is made of."""
        stamps = []
        for path in self.sources:
            source = OpenFile(path)
            stamps.append(source.stamp())
            source.close()
        return b"".join(stamps)

    def state(self) -> bytes | None:
        """None: what is made of the sources is made by code, which changes as well."""
        return None

    def read_into(self, buffer: memoryview, place: int) -> None:
        """Fill `buffer` with bytes of one tensor. Raises FileError once it is closed, and what making them raises."""
        if self._user not in self._users:
            raise FileError(f"{self.path} is closed", hint="read before it is closed")
        number = bisect_right(self._places, place) - 1
        tensor, first = self._tensors[number], place - self._places[number]
        into = np.frombuffer(buffer, np.uint8)
        if isinstance(tensor.data, MadeRows):
            _fill(into, tensor, tensor.data, first)
        else:
            into[:] = self._whole(tensor)[first : first + into.size]

    def _whole(self, tensor: NewTensor) -> Blocks:
        with self._lock:
            if self._kept is None or self._kept[0] is not tensor:
                self._kept = None  # before there are two
                made, done = np.empty(tensor.nbytes, np.uint8), 0
                for piece in tensor.pieces():
                    made[done : done + piece.size] = piece
                    done += piece.size
                self._kept = tensor, made
            return self._kept[1]


def _fill(into: npt.NDArray[np.uint8], tensor: NewTensor, rows: MadeRows, first: int) -> None:
    """The bytes of a tensor from `first` on, out of rows, of which some are made at once."""
    row_bytes = tensor.nbytes // tensor.shape[0]
    step, end = max(1, _PIECE // row_bytes), -(-(first + into.size) // row_bytes)
    for row in range(first // row_bytes, end, step):
        made = rows.make(row, min(row + step, end))
        start = row * row_bytes - first  # of what was made, in `into`
        piece = made[max(0, -start) : into.size - start]
        into[max(0, start) :][: piece.size] = piece
