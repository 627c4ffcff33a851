"""What the tests of families share."""

from __future__ import annotations

import figures
import pytest


@pytest.fixture(scope="module")
def tower(open_tower):
    """The encoder of a family's module, whose `open_tower` opens it."""
    return open_tower()


def pytest_sessionfinish() -> None:
    figures.write()
