"""Masks of a step, made while the device computes it: what may follow depends on ids that are known before.

Thread: the engine's asks; a thread of its own, which begins with the first constraint, makes them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from opsin.engine.constraint import Bits, Constraint
from opsin.engine.masked import few_ids


class Mask(NamedTuple):
    """What may follow; `few` as ids in order, where these are few."""

    bits: Bits
    few: npt.NDArray[np.int64] | None


Masks = list[Mask | None | Exception]


class MaskWork:
    """Makes the masks of one step at a time."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Sequence[Constraint | None] | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[Masks] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, constraints: Sequence[Constraint | None]) -> Callable[[], Masks]:
        """Masks for the rows of a step. What it returns waits for them, and must be called, once.

        It gives a mask for each row, None where nothing steers it, or what making it raised. Until then nobody else
        may touch the constraints.
        """
        if all(constraint is None for constraint in constraints):
            return lambda: [None] * len(constraints)
        if self._thread is None:
            thread = threading.Thread(target=self._live, name="opsin-masks", daemon=True)
            thread.start()
            self._thread = thread
        self._asked.put(constraints)
        return self._made.get

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join()
            self._thread = None

    def _live(self) -> None:
        while (constraints := self._asked.get()) is not None:
            self._made.put([_mask(constraint) for constraint in constraints])


def _mask(constraint: Constraint | None) -> Mask | None | Exception:
    try:
        bits = None if constraint is None else constraint.mask()
        return None if bits is None else Mask(bits, few_ids(bits))
    except BaseException as error:  # noqa: BLE001 - its sequence hears of it, also of a library's panic
        return error if isinstance(error, Exception) else RuntimeError(f"making a mask: {type(error).__name__}")
