"""Where operations go: run at once (`Eager`), or written down to be replayed (`Recorder`).

Running one operation eagerly is a program of length one. Both hand out memory from an arena: a block is free
again when the last Array that sees it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from opsin.errors import ModelError
from opsin.ops import Array, Count, Ops, Rows, Size, most, product
from opsin.ops.cpu.arena import Arena, Block
from opsin.ops.cpu.code import Code, Kernel
from opsin.ops.cpu.program import Entry, Program
from opsin.ops.cpu.team import Team
from opsin.ops.cpu.words import words

TYPES = {"f32": np.float32, "i32": np.int32}
Fetch = Callable[[npt.NDArray[np.int32], npt.NDArray[np.uint8]], None]  # ids [rows], bytes to fill [rows, row]
_ALL_AFTER = 64  # operations, with guards on
SLACK = 64  # kernels may read (never use) a vector past the end


class Lease:
    """A block in use. Dropping it gives the block back."""

    __slots__ = ("__weakref__", "_tape", "block")

    def __init__(self, block: Block, tape: Tape | None) -> None:
        self.block, self._tape = block, tape

    def __del__(self) -> None:
        if self._tape is not None:
            self._tape.give_back(self.block)


@dataclass(frozen=True, eq=False)
class Place:
    """Where an Array's values lie: `row` bytes from one row to the next, the rest of a row together."""

    lease: Lease
    offset: int
    row: int

    @property
    def address(self) -> int:
        return self.lease.block.address + self.offset

    @property
    def block(self) -> Block:
        return self.lease.block


def place(x: Array) -> Place:
    """The place of an Array of this device."""
    assert isinstance(x.data, Place), "an Array of another device"
    return x.data


class Tape:
    """What both kinds share: memory and counts."""

    def __init__(self, code: Code, team: Team, *, guarded: bool = False) -> None:
        self.code, self.team, self.guarded = code, team, guarded
        self.arena = Arena(guarded=guarded)
        self.closed = False
        self.header: npt.NDArray[np.int64] | None = None  # where counts lie

    def emit(
        self,
        kernel: Kernel,
        args: Sequence[float],
        *,
        items: Size | npt.NDArray[np.int64],
        reads: Sequence[Array | Block],
        writes: Sequence[Array | Block],
        grain: int = 1,
        keep: tuple[object, ...] = (),
    ) -> None:
        """Add one operation. `items` is a number, or a word that another operation writes.

        Raises DeviceError in a forked child.
        """
        self.team.home.check()
        cell = items if isinstance(items, np.ndarray) else self.cell(items)
        address = cell if isinstance(cell, int) else int(cell.ctypes.data)
        entry = Entry(
            title=str(kernel), kernel=self.code.address(kernel), args=words(*args), items=address, grain=grain,
            reads=tuple(_block(x) for x in reads), writes=tuple(_block(x) for x in writes),
            keep=(cell, self.header, *keep),
        )  # fmt: skip
        self.add(entry)

    def cell(self, size: Size) -> npt.NDArray[np.int64] | int:
        """A word that holds a size when operations run."""
        if isinstance(size, Count):
            assert isinstance(size.cell, int), "a Count of another device"
            return size.cell
        return words(size)

    def add(self, entry: Entry) -> None:
        raise NotImplementedError

    def fetched(self, ids: Array, row: int, fetch: Fetch) -> Block:
        """`row` bytes for each of `ids`, an input; `fetch` puts them there before what comes next runs."""
        raise NotImplementedError

    def give_back(self, block: Block) -> None:
        raise NotImplementedError

    def lease(self, size: int) -> Lease:
        self.team.home.check()
        return Lease(self.arena.take(size + SLACK), self)

    def new(self, ops: Ops, shape: tuple[Size, ...], dtype: str = "f32") -> Array:
        """An Array of fresh memory."""
        row = 4 * product(shape[1:])
        return Array(ops, Place(self.lease(row * most(shape[0])), 0, row), shape, dtype)


class Eager(Tape):
    """Operations run when they are called, each after `turn`."""

    def __init__(
        self, code: Code, team: Team, *, guarded: bool = False, turn: Callable[[], None] | None = None
    ) -> None:
        super().__init__(code, team, guarded=guarded)
        self._turn, self._ran = turn, 0

    def add(self, entry: Entry) -> None:
        if self._turn is not None:
            self._turn()
        self.team.run(Program([entry]))
        if self.guarded:
            self._check(entry)

    def _check(self, entry: Entry) -> None:
        """What an operation touches is looked at each time, the rest now and then."""
        for block in (*entry.reads, *entry.writes):
            block.check()
        self._ran += 1
        if not self._ran % _ALL_AFTER:
            self.arena.check()

    def fetched(self, ids: Array, row: int, fetch: Fetch) -> Block:
        block = Block(row * most(ids.shape[0]))
        fetch(numbers(ids), block.data.reshape(-1, row))
        return block

    def lease(self, size: int) -> Lease:
        lease = super().lease(size)
        if self.guarded:
            lease.block.fence(size)
        return lease

    def give_back(self, block: Block) -> None:
        if self.guarded:
            block.poison()
        self.arena.give_back(block)


class Recorder(Tape):
    """`opsin.ops.device.Recording`. `inputs` are filled before a run, `counts` set with it."""

    def __init__(self, code: Code, team: Team, *, guarded: bool = False) -> None:
        super().__init__(code, team, guarded=guarded)
        self.entries: list[Entry] = []
        self.inputs: dict[str, npt.NDArray[np.generic]] = {}
        self._filled: list[Block] = []  # of the inputs
        self.counts: dict[str, Count] = {}
        self.tables: dict[str, Rows] = {}
        self.before: list[Callable[[Mapping[str, int]], None]] = []  # what is done before each run, told the counts
        self.fetched_bytes = 0
        self.header: npt.NDArray[np.int64] = np.zeros(64, np.int64)

    def count(self, name: str, most: int) -> Count:
        assert name not in self.counts and len(self.counts) < len(self.header)
        count = Count(name, most, int(self.header.ctypes.data) + 8 * len(self.counts))
        self.counts[name] = count
        return count

    def input(self, ops: Ops, name: str, shape: tuple[Size, ...], dtype: str) -> Array:
        """An Array that is filled from outside before each run; its memory is never reused."""
        assert name not in self.inputs
        row = 4 * product(shape[1:])
        block = Block(row * most(shape[0]) + SLACK, guarded=self.guarded, zero=True)
        self.inputs[name] = view(block, 0, shape, dtype)
        self._filled.append(block)
        return Array(ops, Place(Lease(block, None), 0, row), shape, dtype)

    def rows(self, ops: Ops, name: str, count: int) -> Rows:
        assert name not in self.tables
        self.tables[name] = ops.rows(count)
        return self.tables[name]

    def add(self, entry: Entry) -> None:
        assert not self.closed, "this recording is finished"
        self.entries.append(entry)

    def fetched(self, ids: Array, row: int, fetch: Fetch) -> Block:
        """Raises ModelError for ids that the program computes: they are not known before it runs."""
        if place(ids).block not in self._filled:
            raise ModelError("rows of a stored table are read by ids that are an input")
        size, given = ids.shape[0], numbers(ids)
        block = Block(row * most(size), guarded=self.guarded)
        rows = block.data.reshape(-1, row)
        self._filled.append(block)
        self.fetched_bytes += block.bytes

        def before(counts: Mapping[str, int]) -> None:
            fetch(given[: counts[size.name] if isinstance(size, Count) else size], rows)

        self.before.append(before)
        return block

    def give_back(self, block: Block) -> None:
        if self.closed:
            return
        if self.guarded:
            args = (block.address, block.bytes)
            self.emit(Kernel.of("poison"), args, items=1, reads=(), writes=(block,))
        self.arena.give_back(block)

    def check(self) -> None:
        """Raise DeviceError where something wrote outside the blocks of values and inputs."""
        self.arena.check()
        for block in self._filled:
            block.check()

    def finish(self, outputs: Mapping[str, Array]) -> Replay:
        self.closed = True
        return Replay(self, outputs)


class Replay:
    """`opsin.ops.device.Recorded`."""

    def __init__(self, tape: Recorder, outputs: Mapping[str, Array]) -> None:
        self._tape = tape
        self._program = Program(tape.entries)
        self._outputs = dict(outputs)
        self._views = {n: view(place(x).block, place(x).offset, x.shape, x.dtype) for n, x in outputs.items()}
        self._names = list(tape.counts)
        self.inputs, self.rows = tape.inputs, tape.tables

    def run(self, **counts: int) -> None:
        tape = self._tape
        for name in self._names:
            value = counts[name]
            assert 0 <= value <= tape.counts[name].most, f"{name}={value}, at most {tape.counts[name].most}"

        for fetch in tape.before:
            fetch(counts)

        def write_counts() -> None:
            tape.header[: len(self._names)] = [counts[name] for name in self._names]

        tape.team.run(self._program, write_counts)
        if tape.guarded:
            tape.check()

    def output(self, name: str) -> npt.NDArray[np.generic]:
        return self._views[name]

    @property
    def bytes(self) -> int:
        tape = self._tape
        return tape.arena.bytes + tape.fetched_bytes + sum(a.nbytes for a in self.inputs.values())

    def __len__(self) -> int:
        return len(self._program)


def view(block: Block, offset: int, shape: tuple[Size, ...], dtype: str) -> npt.NDArray[np.generic]:
    """A block's bytes as a NumPy array of the largest shape."""
    sizes = tuple(most(n) for n in shape)
    return np.ndarray(sizes, TYPES[dtype], block.data, offset)


def numbers(x: Array) -> npt.NDArray[np.int32]:
    """The values of an Array of whole numbers, where they lie."""
    return cast(npt.NDArray[np.int32], view(place(x).block, place(x).offset, x.shape, "i32"))


def _block(x: Array | Block) -> Block:
    return x if isinstance(x, Block) else place(x).block
