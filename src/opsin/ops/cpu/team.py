"""The team: threads that stay in compiled code, run programs together, and sleep when there is nothing to do."""

from __future__ import annotations

import atexit
import ctypes
import platform
import sys
import threading
from collections.abc import Callable

import numpy as np

from opsin.errors import DeviceError
from opsin.ops.cpu import cells
from opsin.ops.cpu.code import Code, Kernel
from opsin.ops.cpu.program import Program
from opsin.ops.device import Stopped
from opsin.process import Home

_FUTEX = {"x86_64": 202, "aarch64": 98}
_EXECUTE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)


class Team:
    """`threads` threads, one of which is whoever calls `run`. One program at a time: others wait for it.

    Args:
        code: where the executor's machine code comes from.
        threads: how many take part, the caller included.
        spins: turns of a waiting thread before it gives way, then sleeps.
    """

    def __init__(self, code: Code, threads: int, *, spins: int = 4000) -> None:
        if not 1 <= threads <= cells.MAXIMUM_THREADS:
            raise DeviceError(f"{threads} threads", hint=f"give 1 to {cells.MAXIMUM_THREADS}")
        self.threads = threads
        self._code = code  # threads wait inside it
        self._settles = "x86" not in code.isa.triple  # x86 keeps stores in order
        self._execute = _EXECUTE(code.address(Kernel.of("execute")))
        self._block = np.zeros(cells.TEAM_BYTES // 8 + 8, np.int64)
        start = (-self._block.ctypes.data % cells.LINE) // 8
        self._cells = self._block[start : start + cells.TEAM_BYTES // 8]
        self._address = self._cells.ctypes.data
        self.home = Home()
        self._running = threading.Lock()
        self._kept: list[Program] = []
        self._set_up(spins)
        self._workers: list[threading.Thread] = []
        atexit.register(self.close)  # code must not go while threads wait in it
        try:
            for i in range(1, threads):
                worker = threading.Thread(target=self._work, args=(i,), name=f"opsin-{i}", daemon=True)
                worker.start()
                self._workers.append(worker)
        except BaseException:  # the system gives no more threads, or somebody pressed Ctrl-C
            self.close()
            raise

    def run(self, program: Program, counts: Callable[[], None] | None = None) -> None:
        """Run a program to its end. `counts` writes the sizes that the program reads.

        It is called when the tickets of the run before are void: a thread that is late in that run would take
        larger counts for items that are left to do.

        Raises DeviceError for a kernel's error, after a fork, or once closed; Stopped when `stop` ended it.
        """
        self.home.check()
        with self._running:
            if self._cells[cells.LEAVE // 8]:
                raise DeviceError("the model was closed", hint="load it again")
            self._remember(program)
            program.start(int(self._cells[cells.GO // 8]) + 1)
            if self._settles:
                self._enter(0, cells.SETTLE)
            if counts is not None:
                counts()
            self._put(cells.PROGRAM, program.address)
            self._put(cells.STATUS, 0)
            self._put(cells.SKIPPED, 0)
            self._enter(0, cells.LEAD)
            status, skipped = int(self._cells[cells.STATUS // 8]), int(self._cells[cells.SKIPPED // 8])
        if status:
            code, index = status & 0xFFFFFFFF, status >> 32
            raise DeviceError(f"{program.title(index)}: {cells.MESSAGES.get(code, f'error {code}')}")
        if skipped:
            raise Stopped

    def _remember(self, program: Program) -> None:
        """Keep programs alive while a worker that was put aside may still look at their entries."""
        if self._kept[-1:] == [program]:
            return
        inside = self._cells[cells.INSIDE // 8 :: cells.LINE // 8][1 : self.threads]
        now = self._cells[cells.GO // 8]
        if np.all((inside == 0) | (inside == now)):
            del self._kept[:-1]
        self._kept.append(program)

    def stop(self) -> None:
        """End the running program between two operations, and every later one until `resume`."""
        self._put(cells.STOP, 1)

    def resume(self) -> None:
        self._put(cells.STOP, 0)

    def close(self) -> None:
        """Let the workers leave. Programs cannot run afterwards."""
        if self.home.is_left or self._cells[cells.LEAVE // 8]:
            return
        with self._running:
            self._put(cells.LEAVE, 1)
            self._enter(0, cells.DISMISS)
        for worker in self._workers:
            worker.join()
        atexit.unregister(self.close)

    def _enter(self, thread: int, role: int) -> None:
        self._execute(ctypes.byref(ctypes.c_int64()), None, self._address, thread, 0, role)

    def _work(self, thread: int) -> None:
        """A worker's whole life: it comes back from compiled code only to leave."""
        self._enter(thread, cells.WORK)

    def _put(self, cell: int, value: int) -> None:
        self._cells[cell // 8] = value

    def _set_up(self, spins: int) -> None:
        self._put(cells.THREADS, self.threads)
        self._put(cells.SPINS, spins)
        if sys.platform == "win32":
            library = ctypes.CDLL("kernel32")
            self._put(cells.YIELD_FUNCTION, _function(library, "SwitchToThread"))
            self._put(cells.NAP_FUNCTION, _function(library, "Sleep"))
            self._put(cells.NAP, 1)  # millisecond
            return
        library = ctypes.CDLL(None)
        self._put(cells.YIELD_FUNCTION, _function(library, "sched_yield"))
        self._put(cells.NAP_FUNCTION, _function(library, "nanosleep"))
        self._put(cells.NAP, self._address + cells.NAP_TIME)
        self._put(cells.NAP_TIME + 8, 50_000)  # nanoseconds
        if sys.platform == "linux" and platform.machine() in _FUTEX:
            self._put(cells.SYSCALL_FUNCTION, _function(library, "syscall"))
            self._put(cells.FUTEX_NUMBER, _FUTEX[platform.machine()])
            self._put(cells.SLEEP_TIME + 8, 100_000_000)  # nanoseconds


def _function(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
