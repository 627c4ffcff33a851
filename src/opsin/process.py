"""The process that something lives in: no thread survives a fork, and machine code cannot be sent."""

from __future__ import annotations

import os
from typing import Final, Never, SupportsIndex

from opsin.errors import DeviceError


class _Here:
    """This process. It is looked up anew after a fork alone: each look is a system call."""

    def __init__(self) -> None:
        self.process = os.getpid()
        if hasattr(os, "register_at_fork"):  # Windows has no forks
            os.register_at_fork(after_in_child=self._look)

    def _look(self) -> None:
        self.process = os.getpid()


_HERE: Final = _Here()


class Home:
    """The process in which something was made. Whatever waits for a lock or a thread asks here first."""

    def __init__(self) -> None:
        self._process = _HERE.process

    @property
    def is_left(self) -> bool:
        """Whether this is another process: a child that was forked later."""
        return _HERE.process != self._process

    def check(self) -> None:
        """Raises DeviceError in a forked child."""
        if self.is_left:
            raise DeviceError(
                "this model was loaded before a fork", hint="load it in the child, or start processes with spawn"
            )


class Stays:
    """What lives in one process, once: threads, machine code and a cache that cannot be copied."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        """`copy` and `pickle` ask here. Raises TypeError, as Python's own objects of this kind do."""
        name = type(self).__name__
        article = "an" if name[0] in "AEIOU" else "a"
        raise TypeError(f"{article} {name} cannot be copied or sent to another process: load the model there")
