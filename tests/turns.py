"""Whether a piece of work lets other threads have their turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST = 0.5  # seconds; `serve/long_texts.py` measures, and wants a fifth of it
_TRIES = 6


def longest_wait(work: Callable[[int], object]) -> float:
    """Seconds that another thread waited for its turn at most. Other programs make it wait too: the best of some tries.

    `work` is given the number of the try, for what has been seen before may be remembered.
    """
    best = float("inf")
    for number in range(_TRIES):
        with _Watch() as watch:
            work(number)
        best = min(best, watch.longest)
        if best < LONGEST:
            break
    return best


class _Watch:
    """A thread that wants its turn every two milliseconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.perf_counter()
        while not self._over.is_set():
            time.sleep(0.002)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now
