"""Builds GGUF files field by field, sound or damaged, without the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass
class Field:
    """One run of bytes of a file and what it is there for."""

    role: str
    data: bytes


@dataclass
class RawTensor:
    """A tensor entry; `ne` is in ggml's order."""

    name: bytes
    ne: list[int]
    type: int
    offset: int
    data: bytes = b""


@dataclass
class RawFile:
    """All of a file. `metadata` holds (key, type, value); the value of an array is (element type, list)."""

    metadata: list[tuple[bytes, int, Any]] = field(default_factory=list)
    tensors: list[RawTensor] = field(default_factory=list)
    order: str = "<"
    version: int = 3
    alignment: int = 32
    key_count: int | None = None
    tensor_count: int | None = None

    def fields(self) -> list[Field]:
        made = [Field("magic", b"GGUF"), self._number("version", "I", self.version)]
        made.append(
            self._number("tensor_count", "Q", len(self.tensors) if self.tensor_count is None else self.tensor_count)
        )
        made.append(self._number("key_count", "Q", len(self.metadata) if self.key_count is None else self.key_count))
        for key, kind, value in self.metadata:
            made += self._string(key)
            made.append(self._number("value_type", "I", kind))
            made += self._value(kind, value)
        for tensor in self.tensors:
            made += self._string(tensor.name)
            made.append(self._number("dimensions", "I", len(tensor.ne)))
            made += [self._number("size", "Q", size) for size in tensor.ne]
            made.append(self._number("tensor_type", "I", tensor.type))
            made.append(self._number("offset", "Q", tensor.offset))
        header = sum(len(each.data) for each in made)
        made.append(Field("padding", bytes(-header % self.alignment)))
        data = bytearray()
        for tensor in self.tensors:
            if tensor.offset < 1 << 20:
                data.extend(bytes(max(0, tensor.offset + len(tensor.data) - len(data))))
                data[tensor.offset : tensor.offset + len(tensor.data)] = tensor.data
        return [*made, Field("data", bytes(data))]

    def to_bytes(self) -> bytes:
        return b"".join(each.data for each in self.fields())

    def save(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path

    def _number(self, role: str, letter: str, number: float) -> Field:
        return Field(role, struct.pack(self.order + letter, number))

    def _string(self, text: bytes) -> list[Field]:
        return [self._number("length", "Q", len(text)), Field("text", text)]

    def _value(self, kind: int, value: Any) -> list[Field]:
        if kind == STRING:
            return self._string(value)
        if kind != ARRAY:
            return [self._number("value", SCALARS.get(kind, "I"), value)]
        inner, elements = value
        made = [self._number("value_type", "I", inner), self._number("count", "Q", len(elements))]
        for element in elements:
            made += self._value(inner, element)
        return made


def f32(name: bytes = b"a", offset: int = 0, rows: int = 1) -> RawTensor:
    """A small tensor of rows of 8 floats."""
    return RawTensor(name, [8, rows], 0, offset, struct.pack(f"<{8 * rows}f", *range(8 * rows)))


def every_value() -> list[tuple[bytes, int, Any]]:
    """One key of each type and an array of each, with the largest or the oddest numbers."""
    numbers = {
        0: 255,
        1: -128,
        2: 65535,
        3: -32768,
        4: 2**32 - 1,
        5: -(2**31),
        6: 0.5,
        7: 1,
        10: 2**64 - 1,
        11: -(2**63),
        12: 1e300,
    }
    made: list[tuple[bytes, int, Any]] = [(b"s%d" % kind, kind, number) for kind, number in numbers.items()]
    made += [(b"a%d" % kind, ARRAY, (kind, [number, 0, 1])) for kind, number in numbers.items()]
    made += [
        (b"s8", STRING, "naïve 漢字 🙂".encode()),
        (b"a8", ARRAY, (STRING, [b"", b"token", "漢".encode(), b"\xff\xfe bad"])),
    ]
    made += [
        (b"empty.numbers", ARRAY, (5, [])),
        (b"empty.strings", ARRAY, (STRING, [])),
        (b"empty.string", STRING, b""),
    ]
    return made
