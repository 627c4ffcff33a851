"""One view over a GGUF file: typed metadata, and the raw blocks of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from opsin.errors import FileError, ModelError
from opsin.gguf.byte_order import swap_blocks
from opsin.gguf.header import Header, TensorInfo
from opsin.gguf.new_tensor import NewTensor
from opsin.gguf.open_file import ByteSource
from opsin.gguf.split import merge_tensors, open_parts
from opsin.gguf.strings import Strings
from opsin.gguf.value import Array, Typed, Value, ValueType, find_type

T = TypeVar("T")


class File:
    """An open model file. Use it in a `with` block; metadata stays usable after closing, tensors do not.

    `metadata` maps keys to values: numbers, strings, read-only NumPy arrays, and `Strings` for arrays of strings.
    `tensors` maps names to where each lies, `asked` holds the keys that `get_...` was asked for. Reading is safe from
    many threads at once.
    """

    def __init__(self, path: Path, headers: Sequence[Header]) -> None:
        """Make one view over files whose headers were read; the first one's metadata counts. `open` is the way in."""
        self._headers = tuple(headers)
        self.path = path
        self.asked: set[str] = set()
        self.metadata: Mapping[str, Value] = MappingProxyType(headers[0].metadata)
        self.types: Mapping[str, ValueType] = MappingProxyType(headers[0].types)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(merge_tensors(headers))

    @classmethod
    def open(cls, path: str | Path) -> File:
        """Open the file at `path`, and all its splits if it is the first of them.

        Raises FileError if it is missing, damaged, of a kind that we cannot read, or another split than the first.
        """
        headers = open_parts(Path(path))
        try:
            return cls(Path(path), headers)
        except BaseException:
            for header in headers:
                header.part.close()
            raise

    @classmethod
    def join(cls, model: File, projector: File) -> File:
        """One view over a model and its projector; closing it closes both.

        Keys that both have (`general.*`) are the model's. Raises FileError naming both if they share a tensor's name.
        """
        moved = [_move_header(header, len(model._headers)) for header in projector._headers]
        joined = cls(model.path, [*model._headers, *moved])
        joined.metadata = MappingProxyType(_add_missing(model.metadata, projector.metadata))
        joined.types = MappingProxyType(_add_missing(model.types, projector.types))
        return joined

    def with_keys(self, keys: Mapping[str, Value]) -> File:
        """The same open file, whose metadata has these keys in place of its own; closing one closes both."""
        return self.restated({**self.typed, **{key: find_type(value) for key, value in keys.items()}}, self.tensors)

    def restated(self, metadata: Mapping[str, Typed], tensors: Mapping[str, TensorInfo]) -> File:
        """The same open file that says other things of itself; closing one closes both."""
        parts = [
            replace(header, tensors={name: info for name, info in tensors.items() if info.part == part})
            for part, header in enumerate(self._headers)
        ]
        values = {key: cast(Value, typed.value) for key, typed in metadata.items()}
        parts[0] = replace(parts[0], metadata=values, types={key: typed.type for key, typed in metadata.items()})
        return File(self.path, parts)

    def again(self) -> File:
        """The same open files once more, to be closed by themselves; what lies at their paths now does not matter."""
        return File(self.path, [replace(header, part=header.part.again()) for header in self._headers])

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files behind this view. Those of a GGUF file are in the order of the tensors' `part`."""
        return tuple(path for header in self._headers for path in header.part.sources)

    def stamp(self) -> bytes:
        """What tells the files behind it from all others, as far as a short look does."""
        return b"".join(header.part.stamp() for header in self._headers)

    def state(self) -> bytes | None:
        """What changes whenever somebody writes into the files behind it; None where that cannot be told.

        A big-endian file has none: what is read of it is not what it holds.
        """
        states = [None if header.big_endian else header.part.state() for header in self._headers]
        known = [state for state in states if state is not None]
        return b"".join(known) if len(known) == len(states) else None

    @property
    def typed(self) -> dict[str, Typed]:
        """The metadata with its types, as `write` takes it, so that a copy has the same bytes."""
        return {key: Typed(self.types[key], value) for key, value in self.metadata.items()}

    def copy_tensor(self, name: str) -> NewTensor:
        """One tensor as `write` takes it; it is read when its turn comes."""
        info = self._info(name)
        return NewTensor(name, info.shape, info.type, partial(self.read, name))

    def close(self) -> None:
        """Close all parts; closing twice is harmless."""
        for header in self._headers:
            header.part.close()

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_int(self, key: str, default: int | None = None) -> int:
        """The integer at `key`, of whatever width, or that of all its layers. Without a default the key is required.

        Raises ModelError for an array of different numbers.
        """
        value = self._get_one(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "an integer")
        return value

    def get_float(self, key: str, default: float | None = None) -> float:
        """The number at `key`, or that of all its layers; an integer will do. Without a default the key is required.

        Raises ModelError for an array of different numbers.
        """
        value = self._get_one(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        return float(value)

    def get_bool(self, key: str, default: bool | None = None) -> bool:
        """The boolean at `key`; the integers 0 and 1 will do. Without a default the key is required."""
        value = self._get(key, default)
        if not isinstance(value, int) or value not in (0, 1):
            raise self._wrong(key, value, "a boolean")
        return bool(value)

    def get_str(self, key: str, default: str | None = None) -> str:
        """The string at `key`. Without a default the key is required."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def get_ints(self, key: str, default: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
        """The array of integers at `key`, of whatever width. Without a default the key is required."""
        value = self._get_array(key, default)
        if value.size and (value.dtype.kind not in "iu" or value.max() > np.iinfo(np.int64).max):
            raise self._wrong(key, value, "an array of integers")
        return value.astype(np.int64)

    def get_floats(self, key: str, default: Sequence[float] | None = None) -> npt.NDArray[np.float64]:
        """The array of numbers at `key`; integers will do. Without a default the key is required."""
        value = self._get_array(key, default)
        if value.size and value.dtype.kind not in "iuf":
            raise self._wrong(key, value, "an array of numbers")
        return value.astype(np.float64)

    def get_bools(self, key: str, default: Sequence[bool] | None = None) -> npt.NDArray[np.bool_]:
        """The array of booleans at `key`; integers 0 and 1 will do. Without a default the key is required."""
        value = self._get_array(key, default)
        if value.size and (value.dtype.kind not in "biu" or np.any((value != 0) & (value != 1))):
            raise self._wrong(key, value, "an array of booleans")
        return value.astype(np.bool_)

    def get_strs(self, key: str, default: Sequence[str] | None = None) -> Sequence[str]:
        """The array of strings at `key`. Without a default the key is required."""
        self.asked.add(key)
        value = self.metadata.get(key, default)
        if value is None:
            raise self._missing(key)
        if isinstance(value, np.ndarray) and value.size == 0:
            return []
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(key, value, "an array of strings")
        return value

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The blocks of one tensor as little-endian bytes, [nbytes], in memory of their own."""
        blocks = np.empty(self._info(name).nbytes, np.uint8)
        self.read_into(name, blocks)
        return blocks

    def read_into(self, name: str, buffer: npt.NDArray[np.uint8], first_byte: int = 0) -> None:
        """Fill `buffer` (contiguous) with the bytes of one tensor from `first_byte` on, little-endian.

        Raises FileError if the tensor has no such bytes, or the file no longer has them.
        """
        assert buffer.dtype == np.uint8 and buffer.flags.c_contiguous and buffer.flags.writeable
        info = self._info(name)
        if first_byte < 0 or first_byte + buffer.nbytes > info.nbytes:
            raise FileError(
                f"{self.path}: tensor {name!r} has {info.nbytes} bytes; "
                f"{first_byte} to {first_byte + buffer.nbytes} were asked for",
                hint="ask for bytes inside the tensor",
            )
        flat = buffer.reshape(-1)
        if info.pieces is None:
            self._read_run(info, flat, first_byte)
        else:
            self._read_pieces(info, info.pieces, flat, first_byte)

    def _read_run(self, info: TensorInfo, flat: npt.NDArray[np.uint8], first_byte: int) -> None:
        header = self._headers[info.part]
        if header.big_endian:
            _read_swapped(header.part, info, flat, first_byte)
        else:
            header.part.read_into(flat.data, info.offset + first_byte)

    def _read_pieces(
        self, info: TensorInfo, pieces: Sequence[int], flat: npt.NDArray[np.uint8], first_byte: int
    ) -> None:
        size, done = info.nbytes // len(pieces), 0
        while done < flat.size:
            number, skipped = divmod(first_byte + done, size)
            part = flat[done : done + size - skipped]
            self._read_run(info, part, pieces[number] * size + skipped)
            done += part.size

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise FileError(f"{self.path} has no tensor {name!r}", hint="the file may hold another kind of model")
        return info

    def _get(self, key: str, default: Value | None) -> Value:
        self.asked.add(key)
        value = self.metadata.get(key, default)
        if value is None:
            raise self._missing(key)
        return value

    def _get_one(self, key: str, default: Value | None) -> Value:
        """A value; where the file has one for each layer and all are equal, that one."""
        value = self._get(key, default)
        if not isinstance(value, np.ndarray) or not value.size or value.dtype.kind not in "iuf":
            return value
        if (value != value[0]).any():
            listed = ", ".join(map(str, value[:6].tolist())) + ", ..." * (value.size > 6)
            raise ModelError(
                f"{self.path}: {key} holds different numbers ({listed})",
                hint="layers that differ cannot be run; opsin takes one number for all",
            )
        one: int | float = value[0].item()
        return one

    def _get_array(self, key: str, default: Sequence[float] | None) -> Array:
        self.asked.add(key)
        value = self.metadata.get(key)
        if value is None and default is not None:
            return np.array(default)
        if value is None:
            raise self._missing(key)
        if isinstance(value, Strings) and len(value) == 0:
            return np.empty(0)
        if not isinstance(value, np.ndarray):
            raise self._wrong(key, value, "an array of numbers")
        return value

    def _missing(self, key: str) -> FileError:
        return FileError(f"{self.path} has no key {key!r}", hint="the file may hold another kind of model")

    def _wrong(self, key: str, value: Value, wanted: str) -> FileError:
        return FileError(f"{self.path}: key {key!r} is {_show(value)}, not {wanted}", hint="convert the model again")


def _add_missing(first: Mapping[str, T], second: Mapping[str, T]) -> dict[str, T]:
    """What `first` holds, then what only `second` holds."""
    return {**first, **{key: value for key, value in second.items() if key not in first}}


def _show(value: Value) -> str:
    """A value in an error: never longer than a line."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.size} {value.dtype}"
    return f"{value!r:.80}" if isinstance(value, str | int | float) else f"an array of {len(value)} strings"


def _read_swapped(part: ByteSource, info: TensorInfo, buffer: npt.NDArray[np.uint8], first_byte: int) -> None:
    """Read from a big-endian file: whole blocks, because scalars are swapped inside them."""
    kind = info.kind
    start = first_byte // kind.block_bytes * kind.block_bytes
    end = -(-(first_byte + buffer.nbytes) // kind.block_bytes) * kind.block_bytes
    whole = buffer if end - start == buffer.nbytes else np.empty(end - start, np.uint8)
    part.read_into(whole.data, info.offset + start)
    swap_blocks(whole, kind)
    if whole is not buffer:
        buffer[:] = whole[first_byte - start :][: buffer.nbytes]


def _move_header(header: Header, parts: int) -> Header:
    """The same header, with the part numbers of its tensors moved up by `parts`."""
    return replace(
        header, tensors={name: replace(info, part=info.part + parts) for name, info in header.tensors.items()}
    )
