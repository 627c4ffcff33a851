"""Waiting for what other threads do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Fail where it does not become true in time."""
    assert until(condition, seconds), "it did not happen in time"
