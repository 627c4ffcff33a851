"""Memory that each thread of a kernel has to itself, and whose content nobody needs afterwards."""

from __future__ import annotations

from opsin.ops.cpu.arena import LINE
from opsin.ops.cpu.tape import Lease, Tape


class Scratch:
    """Kept by size: kernels that follow each other share it without waiting, since a thread runs one at a time."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._leases: dict[int, Lease] = {}

    def of(self, size: int) -> tuple[Lease, int]:
        """The memory of all threads, and its bytes a thread: `size` or a little more."""
        size = -(-size // LINE) * LINE
        if size not in self._leases:
            self._leases[size] = self._tape.lease(size * self._tape.team.threads)
        return self._leases[size], size
