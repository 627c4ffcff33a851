"""Waiting for what other threads do, and making them wait. No test measures time: machines are busy now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

PATIENCE = 120.0  # seconds until a test gives up; nothing takes so long that ever happens


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)
    return True


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Fail where it does not become true in time."""
    assert until(condition, seconds), "it did not happen in time"


def hold(runner: object, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> threading.Event:
    """Every step after so many is computed again and again until the event is set, or until it is stopped."""
    let_go, step, made = threading.Event(), runner.step, [0]

    def held(plan):
        result = step(plan)
        made[0] += 1
        while made[0] > after and not let_go.wait(0.001):
            result = step(plan)
        return result

    monkeypatch.setattr(runner, "step", held)
    return let_go


def slow(runner: object, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1) -> None:
    """Each step takes at least so long."""
    step = runner.step

    def slowed(plan):
        time.sleep(seconds)
        return step(plan)

    monkeypatch.setattr(runner, "step", slowed)
