"""Turns metadata values into the bytes of a file. Raises ValueError for what a type cannot hold."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from opsin.gguf.value import SCALAR_CODES, Array, Scalar, Typed, ValueType

STRINGS_AT_ONCE = 4096


class ValueEncoder:
    """Encodes in one byte order."""

    def __init__(self, big_endian: bool) -> None:
        self.big_endian = big_endian
        self._order = ">" if big_endian else "<"
        self._u32 = struct.Struct(self._order + "I")
        self._u64 = struct.Struct(self._order + "Q")

    def encode_u32(self, number: int) -> bytes:
        """Four bytes."""
        return self._u32.pack(number)

    def encode_u64(self, number: int) -> bytes:
        """Eight bytes."""
        return self._u64.pack(number)

    def encode_string(self, text: str) -> bytes:
        """The length and the text; lone surrogates become the bytes that they were read from."""
        raw = text.encode("utf-8", "surrogateescape")
        return self._u64.pack(len(raw)) + raw

    def encode_value(self, typed: Typed) -> Iterator[bytes]:
        """The type and the value, in pieces, so that a vocabulary is not in memory a second time."""
        kind, value = typed.type, typed.value
        if isinstance(value, str | int | float | np.generic):
            yield self.encode_u32(kind)
            yield from self._encode_elements(kind, [value])
        else:
            yield self.encode_u32(ValueType.ARRAY) + self.encode_u32(kind) + self.encode_u64(len(value))
            yield from self._encode_elements(kind, value)

    def _encode_elements(self, kind: ValueType, values: Array | Sequence[Scalar]) -> Iterator[bytes]:
        if kind is ValueType.ARRAY:
            raise ValueError("the type of an array is that of its elements, and they cannot be arrays")
        if kind is ValueType.STRING:
            return self._encode_strings(values)
        return iter([as_numbers(kind, values).astype(self._order + SCALAR_CODES[kind]).tobytes()])

    def _encode_strings(self, values: Array | Sequence[Scalar]) -> Iterator[bytes]:
        for start in range(0, len(values), STRINGS_AT_ONCE):
            texts = values[start : start + STRINGS_AT_ONCE]
            yield b"".join([self.encode_string(_check_text(text)) for text in texts])


def as_numbers(kind: ValueType, values: Array | Sequence[Scalar]) -> npt.NDArray[np.generic]:
    """`values` as a NumPy array of `kind`. Raises ValueError if one is not of that kind or does not fit."""
    wanted = np.dtype("b1" if kind is ValueType.BOOL else SCALAR_CODES[kind])
    given = np.array(values) if len(values) else np.empty(0, wanted)
    if given.ndim != 1:
        raise ValueError(f"an array has one dimension, not {given.ndim}")
    if given.dtype.kind not in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[wanted.kind]:
        raise ValueError(f"{values!r:.80} is not of the type {kind.name}")
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = given.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(numbers, given):
        raise ValueError(f"{values!r:.80} does not fit in {kind.name}")
    if wanted.kind == "f" and not np.array_equal(np.isinf(numbers), np.isinf(given)):
        raise ValueError(f"{values!r:.80} is too large for {kind.name}")
    return numbers


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is not a string")
    return value
