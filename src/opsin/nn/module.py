"""Parts of networks. A part's annotations are its tensors, under the names that GGUF files use."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from types import NoneType
from typing import Annotated, Any, Protocol, Self, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats, Ints
from opsin.errors import ModelError
from opsin.gguf import File
from opsin.ops import Array, Ops, Raw, Weight
from opsin.ops.raw import Origin
from opsin.ops.routes import Stack
from opsin.quants import BY_NAME, by_id

Change = Callable[[Floats], Floats]  # of a matrix [outputs, inputs]
Choice = Callable[[int], Ints]  # of some rows of a matrix, in any order; it is told how many there are


class at(str):  # noqa: N801 - reads as part of an annotation
    """Another name in the file: `fc: Annotated[Linear, at("model.fc")]`; at("") means the owner's own names."""


class Reader(Protocol):
    """Where a network's tensors come from."""

    @property
    def ops(self) -> Ops: ...

    def has(self, name: str) -> bool: ...

    def below(self, path: str) -> bool:
        """Whether any tensor's name begins with `path` and a dot."""
        ...

    def weight(self, name: str, *, change: Change | None = None, rows: Choice | None = None) -> Weight:
        """A matrix (outputs, inputs); a kernel of more dimensions is [outputs, all inputs].

        `rows` chooses some of its rows. `change` gives it another order, in float32: numbers in blocks cannot move.
        """
        ...

    def halves(self, name: str) -> tuple[Weight, Weight]:
        """A matrix (outputs, 2 * inputs) as two (outputs, inputs); in float32 where it is cut within a block."""
        ...

    def stack(self, name: str, part: int = 0, parts: int = 1) -> Stack:
        """Matrices of experts (experts, outputs, inputs). With `parts`, those of each expert's rows cut in so many."""
        ...

    def stored(self, name: str) -> Weight:
        """A table (rows, width) that stays where it is, see `Ops.stored`."""
        ...

    def values(self, name: str) -> Floats: ...


class FileReader:
    """Tensors of a GGUF file, packed for a device as they are read."""

    def __init__(self, file: File, ops: Ops, *, progress: Callable[[int, int], None] | None = None) -> None:
        self.ops, self._file = ops, file
        self._read: set[str] = set()
        self._progress = progress or (lambda done, whole: None)
        self._done, self._whole = 0, sum(info.nbytes for info in file.tensors.values())
        self._origin = Origin(file.path.name, file.state, self._whole)

    def has(self, name: str) -> bool:
        return name in self._file.tensors

    def below(self, path: str) -> bool:
        return any(name.startswith(path + ".") for name in self._file.tensors)

    def weight(self, name: str, *, change: Change | None = None, rows: Choice | None = None) -> Weight:
        kind, outputs, inputs = self._matrix(name)
        if change is not None:
            return self.ops.pack(_raw(name, change(self.values(name).reshape(outputs, inputs))))
        row = by_id(kind).row_bytes(inputs)
        chosen = np.arange(outputs, dtype=np.int32) if rows is None else rows(outputs)

        def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
            part, flat, done = chosen[first:last], into.reshape(-1), 0
            for run in np.split(part, np.flatnonzero(np.diff(part) != 1) + 1) if len(part) else ():
                self._file.read_into(name, flat[done : done + len(run) * row], int(run[0]) * row)
                done += len(run) * row

        place = self._place(name) + ("" if rows is None else f" {blake2b(chosen.tobytes()).hexdigest()}")
        return self.ops.pack(Raw(name, kind, (len(chosen), inputs), read, self._origin, place), rounded=True)

    def halves(self, name: str) -> tuple[Weight, Weight]:
        return self._half(name, 0), self._half(name, 1)

    def _half(self, name: str, number: int) -> Weight:
        kind, outputs, inputs = self._matrix(name)
        width, blocks = inputs // 2, by_id(kind)
        if inputs % 2:
            raise ModelError(f"tensor {name} has {inputs} columns, which are no two halves")
        if width % blocks.elements:
            columns = slice(number * width, (number + 1) * width)
            return self.weight(name, change=lambda values: np.ascontiguousarray(values[:, columns]))

        def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
            whole = np.empty((last - first, 2, blocks.row_bytes(width)), np.uint8)
            self._file.read_into(name, whole.reshape(-1), first * 2 * whole.shape[2])
            into.reshape(last - first, -1)[:] = whole[:, number]

        place = f"{self._place(name)} half {number}"
        return self.ops.pack(Raw(name, kind, (outputs, width), read, self._origin, place), rounded=True)

    def stored(self, name: str) -> Weight:
        """The file stays open for as long as the table lives, also when whoever opened it closes it."""
        kind, outputs, inputs = self._matrix(name)
        file = self._file.again()
        table = self.ops.stored(_raw_of(file, name, kind, (outputs, inputs)))
        weakref.finalize(table, file.close)
        return table

    def stack(self, name: str, part: int = 0, parts: int = 1) -> Stack:
        kind, (experts, outputs, inputs) = self._stack(name, parts)
        row = by_id(kind).row_bytes(inputs)

        def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
            while first < last:
                expert, at = divmod(first, outputs)
                end = last if parts == 1 else min(last, (expert + 1) * outputs)  # rows of one part stand together
                self._file.read_into(name, into[: (end - first) * row], ((expert * parts + part) * outputs + at) * row)
                into, first = into[(end - first) * row :], end

        raw = Raw(name, kind, (experts * outputs, inputs), read, self._origin, f"{self._place(name)} {part} of {parts}")
        return self.ops.pack_experts(raw, experts)

    def _stack(self, name: str, parts: int) -> tuple[int, tuple[int, int, int]]:
        """Number format, and (experts, outputs of a part, inputs)."""
        info = self._need(name)
        if len(info.shape) != 3 or info.shape[1] % parts:
            raise ModelError(f"tensor {name} is {info.shape}; experts of {parts} parts were expected")
        return info.type, (info.shape[0], info.shape[1] // parts, info.shape[2])

    def values(self, name: str) -> Floats:
        info, kind = self._need(name), by_id(self._need(name).type)
        return kind.decode(self._file.read(name).reshape(-1, kind.bytes)).reshape(info.shape)

    def unread(self) -> tuple[str, ...]:
        """Tensors of the file that nobody asked for."""
        return tuple(name for name in self._file.tensors if name not in self._read)

    def _place(self, name: str) -> str:
        """Which bytes of the file a tensor is."""
        info = self._file.tensors[name]
        return f"{info.part} {info.offset} {info.nbytes} {info.pieces}"

    def _matrix(self, name: str) -> tuple[int, int, int]:
        """Number format, outputs and inputs."""
        info = self._need(name)
        if len(info.shape) < 2:
            raise ModelError(f"tensor {name} is {info.shape}; two dimensions were expected")
        return info.type, info.shape[0], math.prod(info.shape[1:])

    def _need(self, name: str) -> Any:
        if name not in self._file.tensors:
            hint = "the file is incomplete, or of another kind"
            raise ModelError(f"{self._file.path} has no tensor {name}", hint=hint)
        info = self._file.tensors[name]
        if name not in self._read:
            self._read.add(name)
            self._done += info.nbytes
            self._progress(self._done, self._whole)
        return info


class Rereader:
    """What another reader has."""

    def __init__(self, source: Reader) -> None:
        self.source = source

    @property
    def ops(self) -> Ops:
        return self.source.ops

    def has(self, name: str) -> bool:
        return self.source.has(name)

    def below(self, path: str) -> bool:
        return self.source.below(path)

    def weight(self, name: str, *, change: Change | None = None, rows: Choice | None = None) -> Weight:
        return self.source.weight(name, change=change, rows=rows)

    def halves(self, name: str) -> tuple[Weight, Weight]:
        return self.source.halves(name)

    def stack(self, name: str, part: int = 0, parts: int = 1) -> Stack:
        return self.source.stack(name, part, parts)

    def values(self, name: str) -> Floats:
        return self.source.values(name)

    def stored(self, name: str) -> Weight:
        return self.source.stored(name)


class FirstLayers(Rereader):
    """What a reader has, but for the layers `blk.N` from the number `layers` on: no part finds these."""

    def __init__(self, source: Reader, layers: int) -> None:
        super().__init__(source)
        self.layers = layers

    def below(self, path: str) -> bool:
        return path != f"blk.{self.layers}" and super().below(path)


def _raw_of(file: File, name: str, kind: int, shape: tuple[int, int]) -> Raw:
    """A matrix as it lies in a file."""
    row = by_id(kind).row_bytes(shape[1])

    def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
        file.read_into(name, into, first * row)

    return Raw(name, kind, shape, read)


def _raw(name: str, values: Floats) -> Raw:
    kind, rows = BY_NAME["F32"], np.ascontiguousarray(values)

    def read(first: int, last: int, into: npt.NDArray[np.uint8]) -> None:
        into[:] = rows[first:last].view(np.uint8).reshape(-1)

    return Raw(name, kind.id, (rows.shape[0], rows.shape[1]), read)


class Module:
    """A part of a network: `read` fills its annotations with tensors and parts of the same names.

    `Weight` is a matrix, `Array` a vector; `X | None` may be missing; `list[X]` is numbered from 0; of
    parts `X | Y` the first is read that `is_there`.
    """

    _path: str  # its tensors' common beginning, for messages

    @classmethod
    def read(cls, source: Reader, path: str = "") -> Self:
        """Raises ModelError for a tensor that is missing, naming it in full."""
        part = cls.__new__(cls)
        part._path = path
        for name, kind in _annotations(cls).items():  # type: ignore[arg-type]  # classes have hashes
            if not name.startswith("_"):
                kind, key = get_args(kind) if get_origin(kind) is Annotated else (kind, name)
                setattr(part, name, _read(source, kind, ".".join(p for p in (path, key) if p)))
        return part

    @classmethod
    def is_there(cls, source: Reader, path: str) -> bool:
        """Whether a file holds this part, and not another that may stand in its place."""
        return source.below(path)

    def tensor(self, name: str) -> str:
        """The full name of a tensor of this part."""
        return ".".join(p for p in (self._path, name) if p)


@cache
def _annotations(part: type[Module]) -> dict[str, Any]:
    """Read once: each layer has the same parts, and their annotations are texts."""
    return get_type_hints(part, include_extras=True)


def _read(source: Reader, kind: Any, path: str) -> Any:
    choices = [k for k in get_args(kind) if k is not NoneType]
    if get_origin(kind) is list:
        parts: list[Any] = []
        while source.below(f"{path}.{len(parts)}"):
            parts.append(_read(source, choices[0], f"{path}.{len(parts)}"))
        return parts
    if len(choices) < len(get_args(kind)):
        plain = choices[0] in (Weight, Array)
        there = source.has(path) if plain else choices[0].is_there(source, path)
        return _read(source, choices[0], path) if there else None
    if len(choices) > 1:
        kind = next(choice for choice in choices if choice.is_there(source, path))
    if kind is Weight:
        return source.weight(path)
    if kind is Array:
        return source.ops.constant(source.values(path).reshape(-1))
    return kind.read(source, path)
