"""Writes GGUF files, version 3, in either byte order, in one file or in parts.

Tensors are made one at a time while writing. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from opsin.errors import DeviceError, FileError, RequestError
from opsin.gguf.byte_order import swap_blocks
from opsin.gguf.encoder import ValueEncoder
from opsin.gguf.header import DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES, is_alignment
from opsin.gguf.new_tensor import NewTensor
from opsin.gguf.split import COUNT_KEY, MAX_PARTS, NUMBER_KEY, SPLIT_KEYS, TENSORS_KEY, name_part
from opsin.gguf.tensor_type import MAX_NAME_BYTES, check_shape
from opsin.gguf.value import Scalar, Typed, Value, ValueType, find_type

VERSION = 3
ALIGNMENT_KEY = "general.alignment"
MAX_ALIGNMENT = 1 << 16

Writable: TypeAlias = Value | Sequence[Scalar] | Typed


def write(
    path: str | Path,
    metadata: Mapping[str, Writable],
    tensors: Iterable[NewTensor],
    *,
    big_endian: bool = False,
    part_bytes: int | None = None,
) -> list[Path]:
    """Write a model to `path` and give the files that were made.

    `metadata` holds plain values (`find_type` says which type each gets) or `Typed` ones. Its `general.alignment`
    rules where tensors lie; its `split.*` keys are left out, because they are made here. With `part_bytes`, the model
    is split into parts of at most so many bytes of tensors (but of one tensor at least), named after `path`.
    Raises FileError naming the key or tensor that cannot be written, RequestError where `path` can be no file, and
    DeviceError where the disk is full or may not be written.
    """
    path = Path(path)
    check_target(path)
    typed = {key: _check_value(path, key, value) for key, value in metadata.items() if key not in SPLIT_KEYS}
    alignment = _find_alignment(path, typed)
    plan = _plan_parts(_check_tensors(path, tensors), part_bytes)
    parts = list(map(_Part, _name_parts(path, len(plan)), _share_keys(typed, plan), plan))
    try:
        with ExitStack() as stack:
            for part in parts:
                stack.callback(part.draft.unlink, missing_ok=True)
                _write_part(part, ValueEncoder(big_endian), alignment)
            for part in parts:
                part.draft.replace(part.target)
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be written: {error.strerror}", hint="check its folder and the space"
        ) from error
    return [part.target for part in parts]


def encode_header(path: Path, metadata: Mapping[str, Writable], tensors: Iterable[NewTensor]) -> bytes:
    """What would stand before the tensors if `write` wrote them to one file. Raises as that does."""
    typed = {key: _check_value(path, key, value) for key, value in metadata.items()}
    part, stream = _Part(path, typed, _check_tensors(path, tensors)), BytesIO()
    _write_header(stream, part, ValueEncoder(False), _find_alignment(path, typed))
    return stream.getvalue()


def check_target(path: Path, sources: Iterable[Path] = ()) -> None:
    """Raises RequestError for what can be no file, or is one that is being read. Whoever works for long asks before."""
    if path.is_dir():
        raise RequestError(f"{path} is a folder", hint="give the name of a file to write")
    if path.exists() and not path.is_file():  # a device or a pipe would be replaced by a file
        raise RequestError(f"{path} is no regular file", hint="give the name of a file to write")
    if not path.parent.is_dir():
        raise RequestError(f"there is no folder {path.parent} for {path.name}", hint="make it, or give another name")
    if path.exists() and any(path.samefile(source) for source in sources):
        raise RequestError(f"{path} is a file to read", hint="give another name for the result")


@dataclass(frozen=True, slots=True)
class _Part:
    """One file to write. It grows as a draft beside its target, and takes its name when all parts are whole."""

    target: Path
    metadata: Mapping[str, Typed]
    tensors: list[NewTensor]

    @property
    def draft(self) -> Path:
        return self.target.with_name(f".{self.target.name}.{os.getpid()}.draft")


def _check_value(path: Path, key: str, value: Writable) -> Typed:
    try:
        if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
            raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes")
        return find_type(value)
    except ValueError as error:
        raise FileError(f"{path}: key {key!r:.80} cannot be written: {error}", hint="give a Typed value") from error


def _check_tensors(path: Path, tensors: Iterable[NewTensor]) -> list[NewTensor]:
    checked: dict[str, NewTensor] = {}
    for tensor in tensors:
        try:
            if not 0 < len(tensor.name.encode()) <= MAX_NAME_BYTES:
                raise ValueError(f"has a name of {len(tensor.name.encode())} bytes; 1 to {MAX_NAME_BYTES} are allowed")
            if tensor.name in checked:
                raise ValueError("is given twice")
            check_shape(tensor.shape, tensor.type)
        except ValueError as error:
            raise FileError(f"{path}: tensor {tensor.name!r} {error}", hint="nothing was written") from error
        checked[tensor.name] = tensor
    return list(checked.values())


def _find_alignment(path: Path, metadata: Mapping[str, Typed]) -> int:
    typed = metadata.get(ALIGNMENT_KEY, Typed(ValueType.UINT32, DEFAULT_ALIGNMENT))
    alignment = typed.value.item() if isinstance(typed.value, np.generic) else typed.value
    if is_alignment(alignment) and alignment <= MAX_ALIGNMENT and typed.type is ValueType.UINT32:
        return alignment
    raise FileError(
        f"{path}: key {ALIGNMENT_KEY!r} cannot be {alignment!r:.80} of type {typed.type.name}",
        hint=f"give a power of two up to {MAX_ALIGNMENT}, as UINT32",
    )


def _plan_parts(tensors: list[NewTensor], part_bytes: int | None) -> list[list[NewTensor]]:
    """Fill part after part, in order; a tensor larger than a part is one by itself."""
    parts: list[list[NewTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if part_bytes is not None and parts[-1] and filled + tensor.nbytes > part_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(tensor)
        filled += tensor.nbytes
    return parts


def _name_parts(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    if count > MAX_PARTS:
        raise FileError(f"{path} would have {count} parts, more than {MAX_PARTS}", hint="make the parts larger")
    prefix = path.name.removesuffix(".gguf")
    return [path.with_name(name_part(prefix, index, count)) for index in range(count)]


def _share_keys(metadata: Mapping[str, Typed], plan: list[list[NewTensor]]) -> list[dict[str, Typed]]:
    """The metadata of each part: all of it in the first, and in each what tells a part from the others."""
    if len(plan) == 1:
        return [dict(metadata)]
    everywhere = {key: metadata[key] for key in (ALIGNMENT_KEY,) if key in metadata}
    total = sum(len(tensors) for tensors in plan)
    return [
        {
            **(metadata if index == 0 else everywhere),
            NUMBER_KEY: Typed(ValueType.UINT16, index),  # in the widths that llama.cpp asks for
            COUNT_KEY: Typed(ValueType.UINT16, len(plan)),
            TENSORS_KEY: Typed(ValueType.INT32, total),
        }
        for index in range(len(plan))
    ]


def _write_part(part: _Part, encoder: ValueEncoder, alignment: int) -> None:
    """Write the draft of one part. Raises FileError for a value or tensor that does not fit, OSError for the disk."""
    with part.draft.open("wb") as stream:
        _write_header(stream, part, encoder, alignment)
        for tensor in part.tensors:
            try:
                for blocks in tensor.pieces():
                    stream.write((_swap(blocks, tensor) if encoder.big_endian else blocks).data)
            except ValueError as error:
                raise FileError(f"{part.target}: {error}", hint="its data is not what its shape says") from error
            _pad(stream, alignment)


def _write_header(stream: BinaryIO, part: _Part, encoder: ValueEncoder, alignment: int) -> None:
    stream.write(MAGIC + encoder.encode_u32(VERSION))
    stream.write(encoder.encode_u64(len(part.tensors)) + encoder.encode_u64(len(part.metadata)))
    for key, typed in part.metadata.items():
        stream.write(encoder.encode_string(key))
        try:
            stream.writelines(encoder.encode_value(typed))
        except ValueError as error:
            raise FileError(f"{part.target}: key {key!r}: {error}", hint="give another value or type") from error
    _write_infos(stream, encoder, part.tensors, alignment)


def _swap(blocks: npt.NDArray[np.uint8], tensor: NewTensor) -> npt.NDArray[np.uint8]:
    swapped = blocks.copy()
    swap_blocks(swapped, tensor.kind)
    return swapped


def _write_infos(stream: BinaryIO, encoder: ValueEncoder, tensors: list[NewTensor], alignment: int) -> None:
    offset = 0
    for tensor in tensors:
        stream.write(encoder.encode_string(tensor.name) + encoder.encode_u32(len(tensor.shape)))
        stream.write(b"".join(encoder.encode_u64(size) for size in reversed(tensor.shape)))
        stream.write(encoder.encode_u32(tensor.type) + encoder.encode_u64(offset))
        offset += -(-tensor.nbytes // alignment) * alignment
    _pad(stream, alignment)


def _pad(stream: BinaryIO, alignment: int) -> None:
    stream.write(bytes(-stream.tell() % alignment))
