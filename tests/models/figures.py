"""Figures that tests of families measure, written where OPSIN_TEST_FIGURES says; see `tools/families.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path

_SEEN: dict[str, float] = {}  # the largest of each test


def note(value: float) -> float:
    """A difference that the test that runs now has found."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
    _SEEN[test] = max(_SEEN.get(test, 0.0), float(value))
    return value


def write() -> None:
    """At the end of all tests."""
    path = os.environ.get("OPSIN_TEST_FIGURES")
    if path:
        Path(path).write_text(json.dumps(_SEEN))
