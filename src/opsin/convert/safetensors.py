"""Reads safetensors files: a JSON header and plain numbers. Files come from strangers, so every claim is checked.

The format: eight bytes with the header's length, the header (tensor names with dtype, shape and data_offsets), then
the data (https://github.com/huggingface/safetensors). Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opsin.errors import FileError
from opsin.gguf.kinds import START_BYTES, recognise

MAX_HEADER = 100 << 20  # bytes, as the reference implementation allows
MAX_NAME, MAX_DIMENSIONS = 512, 8
_WIDTHS: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_HINT = "the file is damaged; download it again"


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `start` counts from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class Safetensors:
    """One open file. Reading is safe from many threads at once."""

    def __init__(self, path: Path) -> None:
        """Raises FileError for a file that is missing or not what its header says."""
        self.path, self._lock = path, threading.Lock()
        try:
            self._stream = path.open("rb", buffering=0)
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror}", hint="is the download complete?") from error
        try:
            self.tensors = self._read_header(path.stat().st_size)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Safetensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def read(self, name: str, first: int = 0, last: int | None = None) -> npt.NDArray[np.float32]:
        """Rows first to last of a tensor in float32. Raises FileError for numbers that are no plain floats."""
        stored = self.tensors[name]
        if stored.dtype not in _FLOATS:
            raise FileError(
                f"{self.path}: tensor {name} holds {stored.dtype}, no plain floats",
                hint="give an unquantised checkpoint",
            )
        rows = stored.shape[0] if stored.shape else 1
        last = rows if last is None else last
        shape = (last - first, *stored.shape[1:]) if stored.shape else ()
        return _floats(self.raw(name, first, last), stored.dtype).reshape(shape)

    def raw(self, name: str, first: int, last: int) -> npt.NDArray[np.uint8]:
        """The bytes of rows first to last, as they lie in the file."""
        stored = self.tensors[name]
        row = math.prod(stored.shape[1:]) * _WIDTHS[stored.dtype]
        data = np.empty((last - first) * row, np.uint8)
        with self._lock:
            self._stream.seek(stored.start + first * row)
            if not self._fill(data.data):
                raise FileError(f"{self.path} ended within tensor {name}", hint=_HINT)
        return data

    def _fill(self, buffer: memoryview) -> bool:
        """Read until it is full; whether that was possible. The system may give less than was asked for."""
        done = 0
        while done < len(buffer):
            count = self._stream.readinto(buffer[done:])
            if not count:
                return False
            done += count
        return True

    def _read_header(self, size: int) -> dict[str, Stored]:
        raw = bytearray(8)
        length = int.from_bytes(raw, "little") if self._fill(memoryview(raw)) else 0
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            self._stream.seek(0)
            what, hint = recognise(self._stream.read(START_BYTES), size)
            if what.startswith(("a ", "packed")):
                raise FileError(f"{self.path} is no safetensors file: it is {what}", hint=hint)
            raise self._wrong(f"its header cannot have {length} bytes in a file of {size}")
        text = bytearray(length)
        try:
            header = json.loads(text, object_pairs_hook=_once) if self._fill(memoryview(text)) else None
        except (ValueError, RecursionError) as error:
            raise self._wrong("its header is no JSON") from error
        if not isinstance(header, dict):
            raise self._wrong("its header is no JSON object")
        header.pop("__metadata__", None)
        found = {name: self._check(name, entry, 8 + length, size) for name, entry in header.items()}
        spans = sorted((stored.start, stored.start + _bytes(stored)) for stored in found.values())
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            if start < end:
                raise self._wrong("two of its tensors overlap")
        return found

    def _check(self, name: str, entry: object, base: int, size: int) -> Stored:
        """One entry of the header. Raises FileError where it and the file do not go together."""
        if not isinstance(entry, dict) or len(name) > MAX_NAME:
            raise self._wrong(f"entry {name!r:.80} is no tensor")
        dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str) or dtype not in _WIDTHS:
            raise FileError(f"{self.path}: tensor {name!r:.80} has the type {dtype!r:.20}", hint="it is not supported")
        sizes, span = _counts(shape), _counts(offsets)
        if sizes is None or len(sizes) > MAX_DIMENSIONS or span is None or len(span) != 2:
            raise self._wrong(f"tensor {name!r:.80} has shape {shape!r:.40} at {offsets!r:.40}")
        stored = Stored(dtype, sizes, base + span[0])
        if span[1] - span[0] != _bytes(stored) or base + span[1] > size:
            raise self._wrong(f"tensor {name!r:.80} does not lie where it should")
        return stored

    def _wrong(self, why: str) -> FileError:
        return FileError(f"{self.path} is no safetensors file: {why}", hint=_HINT)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _counts(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in value):
        return None
    return tuple(value)


def _bytes(stored: Stored) -> int:
    return math.prod(stored.shape) * _WIDTHS[stored.dtype]


def _floats(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        wide = data.view("<u2").astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    return data.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)
