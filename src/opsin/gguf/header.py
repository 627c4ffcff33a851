"""What stands before the tensor data of one file: version, byte order, metadata and tensor places, all checked.

Every count, length and place is held against the size of the file before memory is taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from opsin.errors import FileError
from opsin.gguf.cursor import Cursor
from opsin.gguf.part import Part
from opsin.gguf.tensor_type import TENSOR_TYPES
from opsin.gguf.value import Value, ValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 62
# The least that one entry takes in a file: 8 + 1 of name, 4 of type, 1 of value; 8 + 1 of name, 4 + 4 + 8 more.
LEAST_KEY_BYTES = 14
LEAST_TENSOR_BYTES = 25


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    `shape` is in NumPy's order (rows first), `type` is the ggml id, and `offset` counts from the start of the file
    that `part` names.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    nbytes: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """All that one file says of itself."""

    version: int
    big_endian: bool
    alignment: int
    metadata: dict[str, Value]
    types: dict[str, ValueType]
    tensors: dict[str, TensorInfo]


def read_header(part: Part, index: int = 0) -> Header:
    """Read the header of `part`, whose tensors get the part number `index`. Raises FileError for anything amiss."""
    cursor = Cursor(part)
    version = _read_version(cursor)
    tensor_count = _read_count(cursor, "tensors")
    key_count = _read_count(cursor, "metadata keys")
    _check_count(cursor, key_count, "metadata keys", MAX_KEYS, LEAST_KEY_BYTES)
    metadata, types = _read_metadata(cursor, key_count)
    _check_count(cursor, tensor_count, "tensors", MAX_TENSORS, LEAST_TENSOR_BYTES)
    alignment = _find_alignment(part, metadata)
    infos = [_read_tensor(cursor, index) for _ in range(tensor_count)]
    start = -(-cursor.place // alignment) * alignment
    tensors = _place_tensors(part, infos, start, alignment)
    return Header(version, cursor.big_endian, alignment, metadata, types, tensors)


def _read_version(cursor: Cursor) -> int:
    """Check the magic and read the version, which also tells the byte order."""
    path = cursor.part.path
    if cursor.remaining < 24 or cursor.read_bytes(4, "the magic") != MAGIC:
        raise FileError(f"{path} is not a GGUF file", hint="it should begin with the letters GGUF; give a .gguf file")
    raw = cursor.read_bytes(4, "the version")
    version = int.from_bytes(raw, "little")
    if version & 0xFFFF == 0:
        cursor.set_big_endian()
        version = int.from_bytes(raw, "big")
    if version not in VERSIONS:
        raise FileError(f"{path}: GGUF version {version} is not supported", hint="convert the model again")
    return version


def _read_count(cursor: Cursor, what: str) -> int:
    return cursor.read_integer(ValueType.UINT64, f"the number of {what}")


def _check_count(cursor: Cursor, count: int, what: str, most: int, least_bytes: int) -> None:
    """Refuse a count that the rest of the file cannot hold, or that no real file has."""
    if count * least_bytes > cursor.remaining:
        raise cursor.error(f"{count} {what} do not fit in the {cursor.remaining} bytes left")
    if count > most:
        raise cursor.error(f"{count} {what} are more than the {most} that we read")


def _read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, Value], dict[str, ValueType]]:
    metadata: dict[str, Value] = {}
    types: dict[str, ValueType] = {}
    for number in range(count):
        key = cursor.read_name(MAX_KEY_BYTES, f"metadata key {number}")
        if key in metadata:
            raise cursor.error(f"key {key!r} appears twice")
        kind = cursor.read_type(key)
        metadata[key] = cursor.read_array(key) if kind is ValueType.ARRAY else cursor.read_scalar(kind, f"key {key!r}")
        types[key] = kind
    return metadata, types


def _find_alignment(part: Part, metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    valid = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not valid or alignment <= 0 or alignment & (alignment - 1):  # type: ignore[operator]
        raise FileError(
            f"{part.path}: key 'general.alignment' is {alignment!r}, not a power of two",
            hint="the file is damaged; fetch or convert it again",
        )
    return alignment  # type: ignore[return-value]


def _read_tensor(cursor: Cursor, index: int) -> TensorInfo:
    """Read one tensor entry; its offset is still from the start of the data."""
    name = cursor.read_name(MAX_NAME_BYTES, "a tensor name")
    what = f"tensor {name!r}"
    dimensions = cursor.read_integer(ValueType.UINT32, f"{what}: the number of dimensions")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"{what} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    sizes = [cursor.read_integer(ValueType.UINT64, f"{what}: its shape") for _ in range(dimensions)]
    type_id = cursor.read_integer(ValueType.UINT32, f"{what}: its type")
    offset = cursor.read_integer(ValueType.UINT64, f"{what}: its offset")
    kind = TENSOR_TYPES.get(type_id)
    if kind is None:
        raise cursor.error(f"{what} has the unknown type {type_id}", hint="a newer opsin may know it")
    row = sizes[0] if sizes else 1
    elements = prod(sizes)
    if elements == 0 or elements > MAX_ELEMENTS:
        raise cursor.error(f"{what} has the impossible shape {sizes[::-1]}")
    if row % kind.block_elements:
        raise cursor.error(f"{what} has rows of {row}, no multiple of the {kind.block_elements} of {kind.name}")
    return TensorInfo(name, tuple(sizes[::-1]), type_id, offset, kind.bytes_of(elements), index)


def _place_tensors(part: Part, infos: list[TensorInfo], start: int, alignment: int) -> dict[str, TensorInfo]:
    """Turn offsets into places in the file and check that each tensor lies inside it and alone."""
    tensors: dict[str, TensorInfo] = {}
    for info in infos:
        what = f"{part.path}: tensor {info.name!r}"
        if info.name in tensors:
            raise FileError(f"{what} appears twice", hint="the file is damaged; convert it again")
        if info.offset % alignment:
            raise FileError(
                f"{what} has the offset {info.offset}, no multiple of the alignment {alignment}",
                hint="the file is damaged; convert it again",
            )
        place = start + info.offset
        if place + info.nbytes > part.size:
            raise FileError(
                f"{what} ends at byte {place + info.nbytes}, but the file has {part.size}",
                hint="the download may be incomplete; fetch it again",
            )
        tensors[info.name] = TensorInfo(info.name, info.shape, info.type, place, info.nbytes, info.part)
    for first, second in pairwise(sorted(tensors.values(), key=lambda info: info.offset)):
        if first.offset + first.nbytes > second.offset:
            raise FileError(
                f"{part.path}: tensors {first.name!r} and {second.name!r} overlap at byte {second.offset}",
                hint="the file is damaged; convert it again",
            )
    return tensors
