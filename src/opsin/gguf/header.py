"""What stands before the tensor data of one file: version, byte order, metadata and tensor places, all checked.

Every count, length and place is held against the size of the file before memory is taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TypeGuard

from opsin.errors import FileError
from opsin.gguf.cursor import Cursor
from opsin.gguf.kinds import START_BYTES, recognise
from opsin.gguf.open_file import ByteSource
from opsin.gguf.tensor_type import MAX_DIMENSIONS, MAX_NAME_BYTES, TensorType, check_shape
from opsin.gguf.value import Value, ValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FIXED_BYTES = 24
DEFAULT_ALIGNMENT = 32
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
# The least that one entry takes in a file: 8 + 1 of name, 4 of type, 1 of value; 8 + 1 of name, 4 + 4 + 8 more.
LEAST_KEY_BYTES = 14
LEAST_TENSOR_BYTES = 25
DAMAGED = "the file is damaged; fetch or convert it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    `shape` is in NumPy's order (rows first), `type` is the ggml id, and `offset` counts from the start of the file
    that `part` names. `pieces`, where they are told: its bytes are so many pieces of one size, and where each stands
    among those at `offset`.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    nbytes: int
    part: int = 0
    pieces: tuple[int, ...] | None = None

    @property
    def kind(self) -> TensorType:
        """The tensor's type: its name and its blocks."""
        return check_shape(self.shape, self.type)

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """All that one file says of itself. `types` are those of scalars, and of the elements of arrays."""

    part: ByteSource
    version: int
    big_endian: bool
    alignment: int
    metadata: dict[str, Value]
    types: dict[str, ValueType]
    tensors: dict[str, TensorInfo]


def open_header(part: ByteSource, index: int = 0) -> Header:
    """Read the header of `part`, whose tensors get the part number `index`; `part` is closed if that fails.

    Raises FileError for anything amiss.
    """
    try:
        return _read_header(part, index)
    except BaseException:
        part.close()
        raise


def _read_header(part: ByteSource, index: int) -> Header:
    cursor = Cursor(part)
    version = _read_version(cursor)
    tensor_count = cursor.read_integer(ValueType.UINT64, "the number of tensors")
    key_count = cursor.read_integer(ValueType.UINT64, "the number of metadata keys")
    _check_count(cursor, key_count, "metadata keys", MAX_KEYS, LEAST_KEY_BYTES)
    metadata, types = _read_metadata(cursor, key_count)
    _check_count(cursor, tensor_count, "tensors", MAX_TENSORS, LEAST_TENSOR_BYTES)
    alignment = _find_alignment(part, metadata)
    infos = [_read_tensor(cursor, index) for _ in range(tensor_count)]
    start = -(-cursor.place // alignment) * alignment
    tensors = _place_tensors(part, infos, start, alignment)
    return Header(part, version, cursor.big_endian, alignment, metadata, types, tensors)


def _read_version(cursor: Cursor) -> int:
    """Check the magic and read the version, which also tells the byte order."""
    path, size = cursor.part.path, cursor.remaining
    if not size:
        raise FileError(f"{path} is empty", hint="nothing was downloaded or written: fetch it again")
    start = bytearray(min(START_BYTES, size))
    cursor.part.read_into(memoryview(start), 0)
    if not start.startswith(MAGIC[: len(start)]):
        what, hint = recognise(bytes(start), size)
        raise FileError(f"{path} is not a GGUF file: it is {what}", hint=hint)
    if size < FIXED_BYTES:
        raise FileError(f"{path} has only {size} bytes", hint="the download is incomplete: fetch it again")
    cursor.read_bytes(4, "the magic")
    raw = cursor.read_bytes(4, "the version")
    version = int.from_bytes(raw, "little")
    if version & 0xFFFF == 0:
        cursor.set_big_endian()
        version = int.from_bytes(raw, "big")
    if version not in VERSIONS:
        raise FileError(f"{path} is of GGUF version {version}; we read 2 and 3", hint="convert the model again")
    return version


def _check_count(cursor: Cursor, count: int, what: str, most: int, least_bytes: int) -> None:
    """Refuse a count that the rest of the file cannot hold, or that no real file has."""
    if count * least_bytes > cursor.remaining:
        raise cursor.error(f"{count} {what} do not fit in the {cursor.remaining} bytes left", hint=DAMAGED)
    if count > most:
        raise cursor.error(f"{count} {what} are more than the {most} that we read", hint=DAMAGED)


def _read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, Value], dict[str, ValueType]]:
    metadata: dict[str, Value] = {}
    types: dict[str, ValueType] = {}
    for number in range(count):
        key = cursor.read_name(MAX_KEY_BYTES, f"metadata key {number}")
        if key in metadata:
            raise cursor.error(f"key {key!r:.100} appears twice", hint=DAMAGED)
        kind = cursor.read_type(key)
        if kind is ValueType.ARRAY:
            types[key], metadata[key] = cursor.read_array(key)
        else:
            types[key], metadata[key] = kind, cursor.read_scalar(kind, key)
    return metadata, types


def _find_alignment(part: ByteSource, metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not is_alignment(alignment):
        raise FileError(
            f"{part.path}: key 'general.alignment' is {alignment!r:.80}, not a power of two", hint="convert it again"
        )
    return alignment


def is_alignment(number: object) -> TypeGuard[int]:
    """Whether tensors can be aligned to `number` bytes: a power of two."""
    return isinstance(number, int) and not isinstance(number, bool) and number > 0 and number & (number - 1) == 0


def _read_tensor(cursor: Cursor, index: int) -> TensorInfo:
    """Read one tensor entry; its offset is still from the start of the data."""
    name = cursor.read_name(MAX_NAME_BYTES, "a tensor name")
    what = f"tensor {name!r}"
    dimensions = cursor.read_integer(ValueType.UINT32, f"the dimensions of {what}")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"{what} has {dimensions} dimensions, more than {MAX_DIMENSIONS}", hint=DAMAGED)
    shape = tuple(cursor.read_integer(ValueType.UINT64, f"the shape of {what}") for _ in range(dimensions))[::-1]
    type_id = cursor.read_integer(ValueType.UINT32, f"the type of {what}")
    offset = cursor.read_integer(ValueType.UINT64, f"the offset of {what}")
    try:
        kind = check_shape(shape, type_id)
    except ValueError as error:
        raise cursor.error(f"{what} {error}", hint="convert the model again, to a type that we read") from error
    return TensorInfo(name, shape, type_id, offset, kind.bytes_of(shape), index)


def _place_tensors(part: ByteSource, infos: list[TensorInfo], start: int, alignment: int) -> dict[str, TensorInfo]:
    """Turn offsets into places in the file and check that each tensor lies inside it and alone."""
    tensors: dict[str, TensorInfo] = {}
    needed = max((start + info.offset + info.nbytes for info in infos), default=0)
    for info in infos:
        what = f"{part.path}: tensor {info.name!r}"
        if info.name in tensors:
            raise FileError(f"{what} appears twice", hint=DAMAGED)
        if info.offset % alignment:
            raise FileError(f"{what} has the offset {info.offset}, no multiple of {alignment}", hint=DAMAGED)
        end = start + info.offset + info.nbytes
        if end > part.size:
            raise FileError(
                f"{what} ends at byte {end}, but the file at byte {part.size}",
                hint=f"the download is incomplete: {part.size:,} of {needed:,} bytes are there; fetch it again",
            )
        tensors[info.name] = replace(info, offset=start + info.offset)
    for first, second in pairwise(sorted(tensors.values(), key=lambda info: info.offset)):
        if first.offset + first.nbytes > second.offset:
            raise FileError(
                f"{part.path}: tensors {first.name!r} and {second.name!r} overlap at byte {second.offset}",
                hint=DAMAGED,
            )
    return tensors
