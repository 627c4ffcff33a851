"""The CPU: kernels in Python, compiled by Numba through LLVM, recorded into programs (see docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable

from opsin.config import Config, available_threads
from opsin.ops.cpu.code import Code, Notice
from opsin.ops.cpu.isa import choose
from opsin.ops.cpu.operations import Operations
from opsin.ops.cpu.tape import Eager, Recorded, Recording
from opsin.ops.cpu.team import Stopped, Team
from opsin.process import Home, Stays

__all__ = ["Cpu", "Operations", "Recorded", "Recording", "Stopped"]


class Cpu(Stays):
    """A team of threads with its kernels: runs operations eagerly, or records them.

    Args:
        config: cache folder, checks, CPU.
        threads: compute threads; None takes what affinity and cgroup allow.
        notice: told, in a line, when something slow happens (a kernel is compiled).
    """

    def __init__(self, config: Config, *, threads: int | None = None, notice: Notice | None = None) -> None:
        self.config, self.isa = config, choose(config)
        self.code = Code(self.isa, config.cache, notice)
        self.team = Team(self.code, threads or config.threads or available_threads(), spins=config.spins)

    @property
    def threads(self) -> int:
        return self.team.threads

    @property
    def home(self) -> Home:
        """The process that it runs in. Whoever uses it from another one is refused."""
        return self.team.home

    def eager(self, turn: Callable[[], None] | None = None) -> Operations:
        """Operations that run when they are called. `turn` is called before each, and may wait for the team."""
        return Operations(Eager(self.code, self.team, guarded=self.config.check, turn=turn))

    def record(self) -> tuple[Operations, Recording]:
        """Operations that are written down, and the recording to finish."""
        tape = Recording(self.code, self.team, guarded=self.config.check)
        return Operations(tape), tape

    def close(self) -> None:
        """End the threads. Nothing of this device runs afterwards."""
        self.team.close()
