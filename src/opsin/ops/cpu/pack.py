"""Weights for kernels: read from a file, cut into strips, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import Raw
from opsin.ops.cpu.arena import Block
from opsin.ops.cpu.code import Code, Kernel
from opsin.ops.cpu.program import Entry, Program
from opsin.ops.cpu.team import Team
from opsin.ops.cpu.tiles import PACK_SCRATCH, SUMS_PIECE
from opsin.ops.cpu.weight_cache import WeightCache, padded
from opsin.ops.cpu.words import words
from opsin.ops.layout import STRIP, Layout, layout_of, strips
from opsin.quants import QuantType, by_id

_PIECE_BYTES = 8 << 20  # read and packed at a time: a reader fills one piece while the team packs the other
_SUMS = Kernel.of("sums")
_SLAB_BYTES = 64 << 20  # small tensors share slabs: only large allocations get large pages of memory


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight matrix in strips."""

    shape: tuple[int, int]
    layout: Layout
    block: Block

    @property
    def bytes(self) -> int:
        return self.block.bytes


@dataclass(frozen=True, eq=False)
class PackedStack:
    """Matrices of one shape in strips of their own: shape is (experts, outputs, inputs)."""

    shape: tuple[int, int, int]
    layout: Layout
    block: Block
    expert_bytes: int

    @property
    def bytes(self) -> int:
        return self.block.bytes


class Destination(Protocol):
    """Where strips go."""

    def room(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """Memory for some of them, to be filled."""
        ...

    def put(self, offset: int, strips: npt.NDArray[np.uint8]) -> None:
        """What `room` gave is filled."""
        ...


@dataclass(frozen=True)
class _Memory:
    """Strips that stay where they are packed."""

    block: Block

    def room(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        return self.block.data[offset : offset + size]

    def put(self, offset: int, strips: npt.NDArray[np.uint8]) -> None:
        """They are there."""


class Packer:
    """Packs tensors on a team, or finds them packed. For one thread at a time."""

    def __init__(self, code: Code, team: Team, kept: WeightCache | None = None) -> None:
        self._code, self._team, self._kept = code, team, kept
        # Two pieces for all tensors: fresh memory for each would cost more than reading does.
        self._pieces = [np.empty(0, np.uint8), np.empty(0, np.uint8)]
        self._slab: Block | None = None
        self._used = 0

    def pack(self, raw: Raw, *, rounded: bool = False) -> PackedWeight:
        """Read a tensor piece by piece and lay it out. Raises FileError as `raw.read` does."""
        outputs, inputs = raw.shape
        layout = layout_of(by_id(raw.type), rounded=rounded and self._code.isa.rounds)
        block = self._laid(raw, layout, outputs, padded(strips(outputs) * layout.strip_bytes(inputs)))
        return PackedWeight(raw.shape, layout, block)

    def pack_experts(self, raw: Raw, experts: int) -> PackedStack:
        """The same of so many matrices below each other. Raises ModelError for a shape that is not so many."""
        whole, inputs = raw.shape
        if experts < 1 or whole % experts:
            raise ModelError(f"{raw.name} has {whole} rows, which are not those of {experts} experts")
        outputs = whole // experts
        layout = layout_of(by_id(raw.type))
        size = strips(outputs) * layout.strip_bytes(inputs)
        block = self._laid(raw, layout, outputs, padded(experts * size))
        return PackedStack((experts, outputs, inputs), layout, block, size)

    def _laid(self, raw: Raw, layout: Layout, outputs: int, size: int) -> Block:
        """Strips as they were kept, or as they are made now."""
        entry = None if self._kept is None else self._kept.entry(raw, layout.name, outputs, size)
        if self._kept is not None:
            self._code.address(_SUMS)  # compiled with the first weight, so that who warms up has it
        if self._kept is not None and entry is not None:
            found = entry.find(self._sums) or entry.make(partial(self._lay, raw, layout, outputs), self._sums)
            if found is not None:
                return found if self._kept.maps(found) else self._copied(found)
        block = self._take(size)
        self._lay(raw, layout, outputs, _Memory(block))
        return block

    def _copied(self, block: Block) -> Block:
        own = self._take(block.bytes)
        own.data[:] = block.data
        return own

    def _sums(self, block: Block) -> bytes:
        """See `kernels/sums.py`."""
        sums = np.empty(-(-block.bytes // SUMS_PIECE), np.int64)
        args, items = words(block.address, block.bytes, sums.ctypes.data), words(sums.size)
        self._run(_SUMS, args, items, (sums, block))
        return sums.astype("<i8").tobytes()

    def _lay(self, raw: Raw, layout: Layout, outputs: int, to: Destination) -> None:
        """Rows into strips, which begin anew after each `outputs` rows."""
        kind, (whole, inputs) = by_id(raw.type), raw.shape
        row_bytes = kind.row_bytes(inputs)
        most = max(STRIP, _PIECE_BYTES // row_bytes // STRIP * STRIP)
        unit = whole if outputs % STRIP == 0 else outputs  # rows without a gap in their strips
        pieces = [
            (at, min(at + most, begin + unit))
            for begin in range(0, whole, unit)
            for at in range(begin, begin + unit, most)
        ]

        def read(i: int) -> npt.NDArray[np.uint8]:
            first, last = pieces[i]
            piece = self._piece(i % 2, (last - first) * row_bytes)
            raw.read(first, last, piece)
            return piece

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read, 0)
            for i, (first, _) in enumerate(pieces):
                piece = coming.result()
                if i + 1 < len(pieces):
                    coming = reader.submit(read, i + 1)
                strip = first // outputs * strips(outputs) + first % outputs // STRIP
                offset = strip * layout.strip_bytes(inputs)
                room = to.room(offset, strips(len(piece) // row_bytes) * layout.strip_bytes(inputs))
                self._pack_piece(kind, layout, piece, inputs, room)
                to.put(offset, room)

    def _take(self, size: int) -> Block:
        """Memory for a weight: its own, or part of a slab."""
        if size > _SLAB_BYTES // 4:
            return Block(size)
        if self._slab is None or self._used + size > self._slab.bytes:
            self._slab, self._used = Block(_SLAB_BYTES), 0
        block = Block.within(self._slab, self._used, size)
        self._used += size
        return block

    def _piece(self, number: int, size: int) -> npt.NDArray[np.uint8]:
        if self._pieces[number].size < size:
            self._pieces[number] = np.empty(max(size, _PIECE_BYTES), np.uint8)
        return self._pieces[number][:size]

    def _pack_piece(
        self, kind: QuantType, layout: Layout, piece: npt.NDArray[np.uint8], inputs: int,
        to: npt.NDArray[np.uint8],
    ) -> None:  # fmt: skip
        row_bytes = kind.row_bytes(inputs)
        count = len(piece) // row_bytes
        if layout.kind != "planes":
            plain = layout_of(kind)
            piece = as_plain(kind, plain, piece)
            row_bytes = len(piece) // count
            source = {"source": plain.kind} if layout.kind == "int16" else {}
            kernel = Kernel.of("pack", kind=layout.kind, **source)
        else:
            kernel = Kernel.of("pack", kind="planes", format=kind.id)
        scratch = np.empty(PACK_SCRATCH * self._team.threads, np.uint8)
        args = words(
            piece.ctypes.data,
            row_bytes,
            count,
            inputs,
            to.ctypes.data,
            layout.strip_bytes(inputs),
            scratch.ctypes.data,
            PACK_SCRATCH,
        )
        self._run(kernel, args, words(strips(count)), (scratch,))

    def _run(
        self, kernel: Kernel, args: npt.NDArray[np.int64], items: npt.NDArray[np.int64], keep: tuple[object, ...]
    ) -> None:
        entry = Entry(str(kernel), self._code.address(kernel), args, items.ctypes.data, 1, (), (), (items, *keep))
        self._team.run(Program([entry]))


@np.errstate(over="ignore", invalid="ignore")
def as_plain(kind: QuantType, layout: Layout, piece: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes of float weights in the type that they are kept in."""
    if kind.name == layout.kind.upper():
        return piece
    values = kind.decode(piece.reshape(-1, kind.bytes)).reshape(-1)
    stored = values.astype(np.float32 if layout.kind == "f32" else np.float16)
    return stored.view(np.uint8)
