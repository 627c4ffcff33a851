"""Writes GGUF files, version 3, in either byte order, in one file or in parts.

Tensors are made one at a time while writing. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TypeAlias

from opsin.errors import FileError
from opsin.gguf.byte_order import swap_blocks
from opsin.gguf.encoder import Encoder
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
    Raises FileError naming the key or tensor that cannot be written.
    """
    path = Path(path)
    typed = {key: _check_value(path, key, value) for key, value in metadata.items() if key not in SPLIT_KEYS}
    alignment = _find_alignment(path, typed)
    parts = _plan_parts(_check_tensors(path, tensors), part_bytes)
    paths = _name_parts(path, len(parts))
    total = sum(len(part) for part in parts)
    with ExitStack() as stack:
        drafts = [target.with_name(f".{target.name}.{os.getpid()}.draft") for target in paths]
        for index, (draft, part) in enumerate(zip(drafts, parts, strict=True)):
            stack.callback(draft.unlink, missing_ok=True)
            keys = typed if index == 0 else {key: typed[key] for key in (ALIGNMENT_KEY,) if key in typed}
            split = _describe_split(index, len(parts), total) if len(parts) > 1 else {}
            _write_part(draft, Encoder(big_endian), {**keys, **split}, part, alignment)
        for draft, target in zip(drafts, paths, strict=True):
            draft.replace(target)
    return paths


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
    alignment = metadata[ALIGNMENT_KEY].value if ALIGNMENT_KEY in metadata else DEFAULT_ALIGNMENT
    if not isinstance(alignment, int) or not is_alignment(alignment) or alignment > MAX_ALIGNMENT:
        raise FileError(
            f"{path}: key {ALIGNMENT_KEY!r} is {alignment!r:.80}", hint=f"give a power of two up to {MAX_ALIGNMENT}"
        )
    return alignment


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


def _describe_split(index: int, count: int, tensor_count: int) -> dict[str, Typed]:
    """The keys that tell a part from the others, in the widths that llama.cpp asks for."""
    return {
        NUMBER_KEY: Typed(ValueType.UINT16, index),
        COUNT_KEY: Typed(ValueType.UINT16, count),
        TENSORS_KEY: Typed(ValueType.INT32, tensor_count),
    }


def _write_part(
    path: Path, encoder: Encoder, metadata: Mapping[str, Typed], tensors: list[NewTensor], alignment: int
) -> None:
    """Write one whole file. Raises FileError if the disk or a tensor fails."""
    try:
        with path.open("wb") as stream:
            stream.write(MAGIC + encoder.encode_u32(VERSION))
            stream.write(encoder.encode_u64(len(tensors)) + encoder.encode_u64(len(metadata)))
            for key, typed in metadata.items():
                _write_value(stream, encoder, key, typed)
            _write_infos(stream, encoder, tensors, alignment)
            for tensor in tensors:
                _write_blocks(stream, encoder, tensor)
                _pad(stream, alignment)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}", hint="check the folder and its space") from error


def _write_value(stream: BinaryIO, encoder: Encoder, key: str, typed: Typed) -> None:
    stream.write(encoder.encode_string(key))
    try:
        stream.writelines(encoder.encode_value(typed))
    except ValueError as error:
        raise FileError(f"{stream.name}: key {key!r} cannot be written: {error}", hint="give another type") from error


def _write_infos(stream: BinaryIO, encoder: Encoder, tensors: list[NewTensor], alignment: int) -> None:
    offset = 0
    for tensor in tensors:
        stream.write(encoder.encode_string(tensor.name) + encoder.encode_u32(len(tensor.shape)))
        stream.write(b"".join(encoder.encode_u64(size) for size in reversed(tensor.shape)))
        stream.write(encoder.encode_u32(tensor.type) + encoder.encode_u64(offset))
        offset += -(-tensor.nbytes // alignment) * alignment
    _pad(stream, alignment)


def _write_blocks(stream: BinaryIO, encoder: Encoder, tensor: NewTensor) -> None:
    try:
        blocks = tensor.load()
    except ValueError as error:
        raise FileError(f"{stream.name}: {error}", hint="its data is not what its shape says") from error
    if encoder.big_endian:
        blocks = blocks.copy()
        swap_blocks(blocks, tensor.kind)
    stream.write(blocks.data)


def _pad(stream: BinaryIO, alignment: int) -> None:
    stream.write(bytes(-stream.tell() % alignment))
