"""The process that something lives in: no thread survives a fork, and machine code cannot be sent."""

from __future__ import annotations

import os
from typing import Never, SupportsIndex

from opsin.errors import DeviceError


class Home:
    """The process in which something was made. Whatever waits for a lock or a thread asks here first."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_left(self) -> bool:
        """Whether this is another process: a child that was forked later."""
        return os.getpid() != self._process

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
