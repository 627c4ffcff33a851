"""A place that moves forward through a file's header, reading checked values through a small window.

It does not know which keys there are or what a tensor entry looks like.
"""

from __future__ import annotations

import struct
from array import array
from itertools import repeat

import numpy as np

from opsin.errors import FileError
from opsin.gguf.open_file import ByteSource
from opsin.gguf.strings import LENGTH_BYTES, Strings
from opsin.gguf.value import SCALAR_CODES, SCALAR_LETTERS, Array, Value, ValueType

WINDOW_BYTES = 1 << 20
MAX_STRING_BYTES = 1 << 26


class Cursor:
    """Reads one value after the other. `place` is where the next begins; every length is held against `remaining`."""

    def __init__(self, part: ByteSource) -> None:
        self.part = part
        self.big_endian = False
        self._order = "<"
        self._window = bytearray()
        self._base = 0  # where the window begins in the file
        self._at = 0  # where the next value begins in the window

    @property
    def place(self) -> int:
        """Bytes from the start of the file to the next value."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes from the next value to the end of the file."""
        return self.part.size - self.place

    def set_big_endian(self) -> None:
        """Read what follows as big-endian."""
        self.big_endian = True
        self._order = ">"

    def error(self, message: str, hint: str = "the file is damaged; fetch or convert it again") -> FileError:
        """An error that names the file and the place."""
        return FileError(f"{self.part.path}, byte {self.place}: {message}", hint=hint)

    def read_bytes(self, count: int, what: str) -> bytes:
        """The next `count` bytes; `what` names them in an error."""
        self._need(count, what)
        self._at += count
        return bytes(self._window[self._at - count : self._at])

    def read_integer(self, kind: ValueType, what: str) -> int:
        """The next number of an integer type."""
        return int(self._read_number(kind, what))

    def read_name(self, most_bytes: int, what: str) -> str:
        """The next string as a name: neither empty nor longer than `most_bytes`, and strictly UTF-8."""
        length = self.read_integer(ValueType.UINT64, f"{what}: its length")
        if not 0 < length <= most_bytes:
            raise self.error(f"{what} has {length} bytes; 1 to {most_bytes} are allowed")
        raw = self.read_bytes(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is {raw[:80]!r}, which is not UTF-8") from error

    def read_type(self, key: str) -> ValueType:
        """The next number as the type of a value of `key`."""
        number = self.read_integer(ValueType.UINT32, f"key {key!r:.100}: its type")
        if number > max(ValueType):
            raise self.error(f"key {key!r:.100} has the unknown value type {number}")
        return ValueType(number)

    def read_scalar(self, kind: ValueType, key: str) -> Value:
        """The next value as that of `key`, of a type that is no array."""
        what = f"key {key!r:.100}"
        if kind is ValueType.STRING:
            return self._read_string(what)
        number = self._read_number(kind, what)
        if kind is not ValueType.BOOL:
            return number
        if number not in (0, 1):
            raise self.error(f"{what} is {number}, not a boolean's 0 or 1")
        return number == 1

    def read_array(self, key: str) -> tuple[ValueType, Value]:
        """The next value as the array of `key`: the type of its elements, and a read-only NumPy array or `Strings`."""
        kind = self.read_type(key)
        if kind is ValueType.ARRAY:
            raise self.error(f"key {key!r:.100} is an array of arrays", hint="no reader takes these; convert it again")
        count = self.read_integer(ValueType.UINT64, f"key {key!r:.100}: its count")
        least = LENGTH_BYTES if kind is ValueType.STRING else np.dtype(SCALAR_CODES[kind]).itemsize
        if count * least > self.remaining:
            raise self.error(
                f"key {key!r:.100} has {count} elements, which do not fit in the {self.remaining} bytes left"
            )
        if kind is ValueType.STRING:
            return kind, self._read_strings(count, key)
        return kind, self._read_numbers(kind, count, key)

    def _read_number(self, kind: ValueType, what: str) -> int | float:
        reader = struct.Struct(self._order + SCALAR_LETTERS[kind])
        self._need(reader.size, what)
        (number,) = reader.unpack_from(self._window, self._at)
        self._at += reader.size
        return number  # type: ignore[no-any-return]

    def _read_string(self, what: str) -> str:
        length = self.read_integer(ValueType.UINT64, f"{what}: its length")
        most = min(MAX_STRING_BYTES, self.remaining)
        if length > most:
            raise self.error(f"{what} has {length} bytes, but {most} are left or allowed")
        self._need(length, what)
        self._at += length
        with memoryview(self._window) as view:
            return str(view[self._at - length : self._at], "utf-8", "surrogateescape")

    def _read_numbers(self, kind: ValueType, count: int, key: str) -> Array:
        """An array of numbers, straight from the file into its own memory."""
        stored = np.dtype(self._order + SCALAR_CODES[kind])
        numbers = np.empty(count, stored)
        self._fill(numbers.view(np.uint8).data)
        if self.big_endian:
            numbers = numbers.byteswap(inplace=True).view(stored.newbyteorder("<"))
        if kind is ValueType.BOOL:
            if count and numbers.max() > 1:
                raise self.error(f"key {key!r:.100} holds {numbers.max()}, not a boolean's 0 or 1")
            numbers = numbers.view(np.bool_)
        numbers.flags.writeable = False
        return numbers

    def _read_strings(self, count: int, key: str) -> Strings:
        """Walk over `count` strings and keep their bytes and bounds; none is decoded."""
        del self._window[: self._at]
        self._base += self._at
        self._at = 0
        bounds = array("I", [0])  # 32 bits: an array of strings beyond 4 GiB is refused
        while len(bounds) <= count:
            self._walk(bounds, count, key)
            if bounds[-1] + self._base > self.part.size:
                raise self.error(f"key {key!r:.100}: string {len(bounds) - 2} is longer than the rest of the file")
            short = bounds[-1] + (LENGTH_BYTES if len(bounds) <= count else 0)
            self._need(short, f"key {key!r:.100}: string {len(bounds) - 1}")
        return Strings(self._cut(bounds[-1]), bounds)

    def _walk(self, bounds: array[int], count: int, key: str) -> None:
        """Append the bounds of the strings whose lengths lie in the window: the hot loop of opening a file."""
        window, end, append = self._window, bounds[-1], bounds.append
        unpack = struct.Struct(self._order + "Q").unpack_from
        try:
            for _ in repeat(None, count + 1 - len(bounds)):
                (length,) = unpack(window, end)
                end += LENGTH_BYTES + length
                append(end)
        except struct.error:
            return  # the next length lies beyond the window; the caller reads on
        except OverflowError as error:
            raise self.error(f"key {key!r:.100}: string {len(bounds) - 1} has {length} bytes") from error

    def _cut(self, count: int) -> bytearray:
        """Take the first `count` bytes out of the window, copying the smaller side."""
        if count < len(self._window) - count:
            self._at = count
            return self._window[:count]
        taken, self._window = self._window, self._window[count:]
        self._base += count
        del taken[count:]
        return taken

    def _fill(self, buffer: memoryview) -> None:
        """Fill `buffer` with the next bytes: from the window if it has them all, else straight from the file."""
        if self._at + len(buffer) <= len(self._window):
            buffer[:] = memoryview(self._window)[self._at : self._at + len(buffer)]
            self._at += len(buffer)
            return
        self.part.read_into(buffer, self.place)
        self._base += self._at + len(buffer)
        self._at = 0
        self._window = bytearray()

    def _need(self, count: int, what: str) -> None:
        """Make the window hold the next `count` bytes."""
        if self._at + count <= len(self._window):
            return
        if count > self.remaining:
            raise self.error(f"the file ends inside {what}", hint="the download may be incomplete; fetch it again")
        del self._window[: self._at]
        self._base += self._at
        self._at = 0
        end = self._base + len(self._window)
        more = min(max(WINDOW_BYTES, count - len(self._window)), self.part.size - end)
        fresh = bytearray(more)
        self.part.read_into(memoryview(fresh), end)
        self._window += fresh
