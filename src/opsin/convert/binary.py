"""A place that moves forward through a binary file of plain little-endian numbers; every length is checked first."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

from opsin.errors import FileError

_LONGEST = 1 << 16  # bytes of one text


class Cut:
    """`place` is where the next value begins, `left` how many bytes follow."""

    def __init__(self, path: Path, stream: FileIO, size: int) -> None:
        self.path, self.place, self._stream, self._size = path, 0, stream, size

    @property
    def left(self) -> int:
        return self._size - self.place

    def wrong(self, why: str) -> FileError:
        """An error that names the file and the place."""
        return FileError(f"{self.path}, byte {self.place}: {why}", hint="the file is damaged; download it again")

    def skip(self, count: int) -> None:
        """Go on behind some bytes. Raises FileError where there are not so many."""
        if not 0 <= count <= self.left:
            raise self.wrong(f"{count} bytes are needed, {self.left} follow")
        self.place += count

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        if count > _LONGEST:
            raise self.wrong(f"a text of {count} bytes")
        start = self.place
        self.skip(count)
        self._stream.seek(start)
        data = b""
        while len(data) < count and (piece := self._stream.read(count - len(data))):
            data += piece
        if len(data) < count:
            raise self.wrong("the file ended")
        return data

    def integer(self, count: int) -> int:
        """The next number of so many bytes, without a sign."""
        return int.from_bytes(self.bytes(count), "little")

    def count(self, most: int, what: str) -> int:
        """How many follow, in four bytes. Raises FileError for more than there may be."""
        found = self.integer(4)
        if found > most:
            raise self.wrong(f"{found} {what}, at most {most}")
        return found

    def text(self, count: int) -> str:
        """A text whose length stands before it in so many bytes, with the zero behind it."""
        return self.bytes(self.integer(count)).rstrip(b"\0").decode()
