"""The CPU: kernels in Python, compiled by Numba through LLVM, recorded into programs (see docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable

from opsin.config import Config, available_threads
from opsin.ops.cpu.code import Code
from opsin.ops.cpu.isa import choose
from opsin.ops.cpu.operations import Operations
from opsin.ops.cpu.tape import Eager, Recorder
from opsin.ops.cpu.team import Team
from opsin.ops.cpu.weight_cache import open_cache
from opsin.ops.device import Notice
from opsin.process import Home, Stays

__all__ = ["Cpu", "Operations"]


class Cpu(Stays):
    """`opsin.ops.device.Device` of a team of threads with its kernels.

    Args:
        config: cache folder, checks, CPU.
        threads: compute threads; None takes what affinity and cgroup allow.
        notice: told, in a line, when something slow happens (a kernel is compiled).
    """

    def __init__(self, config: Config, *, threads: int | None = None, notice: Notice | None = None) -> None:
        self.config, self.isa = config, choose(config)
        self.code = Code(self.isa, config.cache, notice)
        self.team = Team(self.code, threads or config.threads or available_threads(), spins=config.spins)
        self._kept = open_cache(config, self.code)

    @property
    def threads(self) -> int:
        return self.team.threads

    @property
    def home(self) -> Home:
        return self.team.home

    def eager(self, turn: Callable[[], None] | None = None) -> Operations:
        return Operations(Eager(self.code, self.team, guarded=self.config.check, turn=turn), self._kept)

    def record(self) -> tuple[Operations, Recorder]:
        tape = Recorder(self.code, self.team, guarded=self.config.check)
        return Operations(tape), tape

    def stop(self) -> None:
        self.team.stop()

    def resume(self) -> None:
        self.team.resume()

    def close(self) -> None:
        self.team.close()
