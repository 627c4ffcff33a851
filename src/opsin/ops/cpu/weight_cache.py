"""Packed weights in files, mapped: what was packed once is there at the next start, and processes share its memory.

A shelf is the folder of one model file, and has a file for each tensor: the strips as they lie in memory, the sums of
their pieces (`kernels/sums.py`), and a foot. Strips are written in whole large pages, from the first byte on, so that
file systems keep them in such and processors find their addresses as quickly as in memory of their own. A file is
written beside and linked to its name when it is whole, never changed and never cut: whoever clears removes its name,
and processes that have mapped it keep it. Sums are compared before a weight is used, so that damage of the disk or of a
crash is a miss. What damages a mapped file afterwards (its owner cutting it, a disk that fails) is not seen here.

It does not know how strips lie, nor who sums.
"""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from opsin.arrays import Bytes
from opsin.config import Config
from opsin.ops.cpu.arena import LINE, Block
from opsin.ops.cpu.code import Code, is_ours
from opsin.ops.cpu.weight_shelves import ENDING, FOOT, PART, READ, foot_label, kept_models, remove
from opsin.ops.raw import Origin, Raw

Summing = Callable[[Block], bytes]  # the sums of a block's pieces

_LARGE_PAGE: Final = 2 << 20
_MAGIC: Final = b"opsinWe1"
_FREE_SHARE, _FREE_BYTES = 0.1, 4 << 30  # of a disk that stay free
_PATIENCE, _PACE = 3.0, 200e6  # a disk that takes fewer bytes a second, after so many seconds, is not waited for
_OLD_PART: Final = 3600  # seconds after which nobody writes a part any more


class _NoRoomError(OSError):
    """The disk, or the limit, has no room, or a disk is too slow to wait for."""


@dataclass
class _Shelf:
    """What is known of a model's folder."""

    folder: Path
    state: bytes
    room: int | None = None  # bytes that may still be written, once somebody has looked
    seconds: float = 0.0
    written: int = 0
    used: bool = False
    closed: bool = False  # nothing more is kept there


class WeightCache:
    """Tensors of models whose files have `least` bytes, altogether at most `most`; the longest unused go first.

    Threads: those that load, which may be several: of one model they may write a tensor twice, one of which is kept.

    Args:
        folder: made where it is not there, for its owner alone.
        maker: what tells the code that packs, and the CPU, from all others.
    """

    def __init__(self, folder: Path, maker: str, *, most: int, least: int) -> None:
        self.folder, self.most, self._maker, self._least = folder, most, maker, least
        self._shelves: WeakKeyDictionary[Origin, _Shelf] = WeakKeyDictionary()
        self._large: bool | None = None  # whether files are mapped in large pages, once somebody has looked

    def entry(self, raw: Raw, layout: str, outputs: int, size: int) -> KeptTensor | None:
        """Where a tensor, in matrices of so many outputs, is or will be kept; None where it is not."""
        origin = raw.origin
        if origin is None or origin.bytes < self._least or origin.bytes > self.most:
            return None
        state = origin.state()
        if state is None:
            return None
        shelf = self._shelves.get(origin)
        if shelf is None or shelf.state != state:
            name = blake2b(self._maker.encode() + state, digest_size=16, person=b"shelf").hexdigest()
            shelf = self._shelves[origin] = _Shelf(self.folder / name, state)
        told = f"{raw.place} {raw.type} {raw.shape} {layout} {outputs} {size}".encode()
        return KeptTensor(
            self, shelf, origin, blake2b(told, digest_size=32, key=shelf.folder.name.encode()).digest(), size
        )

    def maps(self, block: Block) -> bool:
        """Whether a block of a file is to be used as it is mapped; all its bytes have been read.

        In pages of 4 KB a processor looks for addresses longer than it computes, so what is not in large ones is to be
        copied into memory that is.
        """
        if self._large is None and block.bytes >= 4 * _LARGE_PAGE:
            with suppress(OSError):  # another system than Linux
                self._large = is_in_large_pages(Path("/proc/self/smaps").read_text(errors="replace"), block)
        return bool(self._large) and block.bytes >= _LARGE_PAGE

    def need_room(self, shelf: _Shelf, origin: Origin, size: int) -> None:
        """Raises OSError where `size` more bytes of a model have no place in the folder, or on its disk."""
        if shelf.room is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(self.folder.stat())
            shelf.room = self._make_room(shelf, max(size, origin.bytes))
            self._make_shelf(shelf)
        if size > shelf.room or size > _disk_room(self.folder):
            raise _NoRoomError

    def _make_room(self, shelf: _Shelf, size: int) -> int:
        """Take others away, the longest unused first, until a model of `size` bytes has room; bytes that it may have.

        Raises OSError where its disk has none: with all others there if they could not help, and as soon as one of them
        did not, since somebody has it mapped.
        """
        kept = {one.folder: one.bytes for one in kept_models(self.folder)}
        lacks = size - kept.pop(str(shelf.folder), 0)  # what of it is not there yet
        used = sum(kept.values())
        if lacks > used + _disk_room(self.folder):
            raise _NoRoomError
        for other in kept:
            room = _disk_room(self.folder)
            if used + size <= self.most and lacks <= room:
                break
            gone = remove(Path(other))
            if gone and lacks > room >= _disk_room(self.folder):
                raise _NoRoomError
            used -= gone
        return self.most - used

    def _make_shelf(self, shelf: _Shelf) -> None:
        """Raises OSError where it cannot be made, or others could write there."""
        shelf.folder.mkdir(mode=0o700, exist_ok=True)
        _check_owner(shelf.folder.lstat())
        for path in shelf.folder.glob(PART + "*"):  # of a process that was killed
            with suppress(OSError):  # somebody else took it away
                if time.time() - path.lstat().st_mtime > _OLD_PART:
                    path.unlink()


@dataclass(frozen=True, eq=False)
class KeptTensor:
    """A tensor's place on its shelf."""

    cache: WeightCache
    shelf: _Shelf
    origin: Origin
    key: bytes
    size: int

    @property
    def path(self) -> Path:
        return self.shelf.folder / (self.key.hex()[:32] + ENDING)

    def find(self, summing: Summing) -> Block | None:
        """The strips, mapped; None where there are none, or they are damaged, which takes them away."""
        try:
            handle = os.open(self.path, READ)
        except FileNotFoundError:
            return None
        except OSError:  # a link, or not for us to read
            self.shelf.closed = True
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or not is_ours(status):
                self.shelf.closed = True
                return None
            block = self._checked(handle, status.st_size, summing)
        finally:
            os.close(handle)
        with suppress(OSError):
            if block is None:
                self.path.unlink()
            elif not self.shelf.used:
                self.shelf.used = True
                os.utime(self.shelf.folder)
        return block

    def _checked(self, handle: int, size: int, summing: Summing) -> Block | None:
        rest = os.pread(handle, size, self.size) if size > self.size + FOOT.size else b""
        sums, foot = rest[: -FOOT.size], rest[-FOOT.size :]
        if len(foot) != FOOT.size or foot != self._foot(sums, foot_label(foot)):
            return None
        block = _mapped(handle, self.size)
        return block if block is not None and summing(block) == sums else None

    def make(self, fill: Callable[[Draft], None], summing: Summing) -> Block | None:
        """The strips as `fill` writes them; None where they cannot be kept. Raises what `fill` raises beside OSError.

        Where the model's file was changed meanwhile, they are there for this process alone.
        """
        draft: Draft | None = None
        if self.shelf.closed:
            return None
        try:
            self.cache.need_room(self.shelf, self.origin, self.size)
            draft = Draft(self)
            fill(draft)
            return self._named(draft, summing)
        except OSError:
            self.shelf.closed = True
            return None
        finally:
            if draft is not None:
                draft.close()

    def _named(self, draft: Draft, summing: Summing) -> Block | None:
        draft.finish(self.size)
        block = _mapped(draft.handle, self.size)
        if block is None:
            return None
        sums = summing(block)
        _write(draft.handle, sums + self._foot(sums, self.origin.label), self.size)
        if self.origin.state() != self.shelf.state:
            return block
        try:
            os.link(draft.path, self.path)
        except FileExistsError:  # another process was first: what it maps, all map
            return self.find(summing) or block
        except OSError:  # a file system without links
            draft.path.replace(self.path)
        return block

    def _foot(self, sums: bytes, label: str) -> bytes:
        said = label.encode(errors="replace")[:200]
        digest = blake2b(FOOT.pack(self.key, self.size, said, b"", _MAGIC) + sums, digest_size=16).digest()
        return FOOT.pack(self.key, self.size, said, digest, _MAGIC)


class Draft:
    """A file that is being written under a name of its own, from front to back."""

    def __init__(self, kept: KeptTensor) -> None:
        self.handle, name = tempfile.mkstemp(prefix=PART, dir=kept.shelf.folder)
        self.path, self._shelf = Path(name), kept.shelf
        self._buffer, self._written, self._end = Block(0), 0, 0  # what is written, and filled, of the file

    def room(self, offset: int, size: int) -> Bytes:
        """Memory for some strips, until `put`."""
        assert offset == self._end, "strips come in order"
        waiting = self._end - self._written
        if self._buffer.bytes < waiting + size:
            larger = Block(size + _LARGE_PAGE)
            larger.data[:waiting] = self._buffer.data[:waiting]
            self._buffer = larger
        return self._buffer.data[waiting : waiting + size]

    def put(self, offset: int, strips: Bytes) -> None:
        """What `room` gave is filled. Raises OSError where the disk takes it not, or not in time."""
        self._end += strips.size
        waiting = self._end - self._written
        self._write(waiting // _LARGE_PAGE * _LARGE_PAGE, waiting)

    def finish(self, size: int) -> None:
        """The file has so many bytes. Raises OSError as `put`."""
        waiting = self._end - self._written
        self._write(waiting, waiting)
        os.ftruncate(self.handle, size)

    def _write(self, count: int, waiting: int) -> None:
        """The first so many bytes of those that wait."""
        began, data, shelf = time.perf_counter(), self._buffer.data, self._shelf
        _write(self.handle, data[:count].data, self._written)
        shelf.seconds += time.perf_counter() - began
        data[: waiting - count] = data[count:waiting].copy()
        self._written += count
        shelf.written += count
        if shelf.room is not None:
            shelf.room -= count
        if shelf.seconds > _PATIENCE and shelf.written < _PACE * shelf.seconds:
            raise _NoRoomError

    def close(self) -> None:
        """What got no name is gone."""
        os.close(self.handle)
        with suppress(OSError):
            self.path.unlink()


def open_cache(config: Config, code: Code) -> WeightCache | None:
    """The cache that the options ask for; None for none."""
    if config.weights is None or not can_keep():
        return None
    maker = code.store.folder.name
    return WeightCache(config.weights, maker, most=config.weights_most, least=config.weights_least)


def can_keep() -> bool:
    """Whether this system has files that may go while they are mapped, and tells when they were changed."""
    return os.name == "posix"


def _mapped(handle: int, size: int) -> Block | None:
    """The strips of an open file, to be read alone; None where the system gives no room for them."""
    try:
        pages = mmap.mmap(handle, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without large pages
            pages.madvise(mmap.MADV_HUGEPAGE)  # a cold disk is read in such, too
    return Block.over(np.frombuffer(pages, np.uint8))


def is_in_large_pages(smaps: str, block: Block) -> bool:
    """Whether most of a mapped file is in large pages, of what Linux says in /proc/self/smaps."""
    inside = False
    for line in smaps.splitlines():
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):
            start, _, end = word.partition("-")
            inside = int(start, 16) <= block.address < int(end, 16)
        elif inside and word == "FilePmdMapped:":
            return 2 * 1024 * int(rest.split()[0]) >= block.bytes
    return False


def _check_owner(status: os.stat_result) -> None:
    """Raises OSError for what is no folder, or one where others could write."""
    if not stat.S_ISDIR(status.st_mode) or not is_ours(status):
        raise PermissionError


def _disk_room(folder: Path) -> float:
    """Bytes that may be written on a folder's disk, so that enough stay free; below 0 where fewer are."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize - max(_FREE_BYTES, _FREE_SHARE * disk.f_blocks * disk.f_frsize)


def _write(handle: int, data: bytes | memoryview, place: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], place + done)


def padded(size: int) -> int:
    """Bytes of a weight with what kernels may read behind it, in whole lines."""
    return -(-(size + 256) // LINE) * LINE
