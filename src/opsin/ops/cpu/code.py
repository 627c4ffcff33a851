"""Machine code of kernels: found in the cache folder, or compiled on first use and put there.

A kernel is named by a `Kernel`: a module of `ops/cpu/kernels`, whose `make(simd, **options)` gives a Python
function. Compiled objects are kept by a key over the sources of `ops/` and `quants/`, the compiler's version
and the CPU, so that no edit is ever served stale. Numba is imported only when something must be compiled.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from opsin.errors import DeviceError
from opsin.ops.cpu.half import conversions
from opsin.ops.cpu.isa import Isa
from opsin.ops.device import Notice
from opsin.process import Home

_MAGIC = b"opsin-kernel-1\n"
_MADE_FROM = Path(__file__).parents[2]  # the package: ops/ and quants/ lie below it

_TO_LOAD, _TO_COMPILE = 64 << 20, 256 << 20  # bytes that are there before LLVM begins


@dataclass(frozen=True)
class Kernel:
    """Which kernel: `module` below ops/cpu/kernels and the options of its `make`."""

    module: str
    options: tuple[tuple[str, str | int | bool], ...] = ()

    @classmethod
    def of(cls, module: str, **options: str | int | bool) -> Kernel:
        return cls(module, tuple(sorted(options.items())))

    @property
    def digest(self) -> str:
        """A name for files and symbols: equal for equal kernels only."""
        return hashlib.blake2b(str(self).encode(), digest_size=10).hexdigest()

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={v}" for k, v in self.options)
        return f"{self.module}({inside})"


def source_key(isa: Isa, root: Path = _MADE_FROM) -> str:
    """Names the cache folder: changes with any kernel source, Numba, llvmlite, or the CPU."""
    digest = hashlib.blake2b(digest_size=12)
    for package in ("numba", "llvmlite"):
        digest.update(package.encode() + _version(package))
    digest.update(f"{isa.name} {isa.triple} {isa.cpu} {isa.features}\n".encode())
    for folder in ("ops", "quants"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> bytes:
    """The source that says a package's version. Nothing is imported: `importlib.metadata` takes 13 ms."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("_version.py").read_bytes()


class Store:
    """Compiled objects in a folder. Losing it, or not being able to write it, costs only time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kernel: Kernel) -> Path:
        return self.folder / f"{kernel.module}-{kernel.digest}.o"

    def get(self, kernel: Kernel) -> tuple[str, bytes] | None:
        """Symbol and object, or None where there is none that can be trusted."""
        path = self.path(kernel)
        try:
            if not is_ours(path.stat()):
                return None
            raw = path.read_bytes()
        except OSError:
            return None
        return _unpack(raw)

    def put(self, kernel: Kernel, symbol: str, code: bytes) -> bool:
        """Write atomically: another process sees nothing or all of it. False where we may not write."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        except OSError:
            return False
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_pack(symbol, code))
            Path(name).replace(self.path(kernel))
        except OSError:
            with suppress(OSError):
                Path(name).unlink()
            return False
        return True


def is_ours(status: os.stat_result) -> bool:
    """Whether no other user could have written it: code is run from such files alone, and weights are read."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _pack(symbol: str, code: bytes) -> bytes:
    name = symbol.encode()
    body = struct.pack("<I", len(name)) + name + code
    return _MAGIC + hashlib.blake2b(body, digest_size=16).digest() + body


def _unpack(raw: bytes) -> tuple[str, bytes] | None:
    head = len(_MAGIC) + 16
    body = raw[head:]
    if raw[: len(_MAGIC)] != _MAGIC or hashlib.blake2b(body, digest_size=16).digest() != raw[len(_MAGIC) : head]:
        return None
    (size,) = struct.unpack_from("<I", body)
    return body[4 : 4 + size].decode(), body[4 + size :]


class Code:
    """Addresses of kernels for one instruction set, loaded once a process."""

    def __init__(self, isa: Isa, cache: Path, notice: Notice | None = None) -> None:
        self.isa = isa
        self.store = Store(cache / "kernels" / source_key(isa))
        self.notice = notice or (lambda text: None)
        self.compiled = 0
        self.writable = True
        self._addresses: dict[Kernel, int] = {}
        self._engine: llvm.ExecutionEngine | None = None
        self._lock, self._home = threading.Lock(), Home()

    def address(self, kernel: Kernel) -> int:
        """Where the kernel's machine code lies; compiled now if it has to be. From any thread.

        A forked child has what was loaded before; more raises DeviceError there.
        """
        known = self._addresses.get(kernel)
        if known is not None:
            return known
        self._home.check()
        with self._lock:
            if kernel not in self._addresses:
                self._addresses[kernel] = self._load(*self._object(kernel))
            return self._addresses[kernel]

    @property
    def loaded(self) -> tuple[Kernel, ...]:
        return tuple(self._addresses)

    def _object(self, kernel: Kernel) -> tuple[str, bytes]:
        found = self.store.get(kernel)
        if found is not None:
            return found
        from opsin.ops.cpu import compiler

        _need(_TO_COMPILE)
        self.compiled += 1
        self.notice(f"compiling kernel {self.compiled}: {kernel}")
        symbol, code = compiler.compile_object(kernel, self.isa)
        self.writable = self.store.put(kernel, symbol, code) and self.writable
        return symbol, code

    def _load(self, symbol: str, code: bytes) -> int:
        _need(_TO_LOAD)
        if self._engine is None:
            self._engine = _engine(self.isa)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = int(self._engine.get_function_address(symbol))
        if not address:
            raise DeviceError(f"kernel {symbol} did not load", hint=f"delete {self.store.folder}")
        return address


def _need(count: int) -> None:
    """Raises MemoryError where so many bytes cannot be had: LLVM does not raise then, it ends the process."""
    np.empty(count, np.uint8)


def _engine(isa: Isa) -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    base = llvm.parse_assembly(f'target triple = "{isa.triple}"\n{conversions(isa.triple)}')
    return llvm.create_mcjit_compiler(base, isa.target_machine())
