"""What the tests of families share."""

from __future__ import annotations

from collections.abc import Iterator

import figures
import pytest


@pytest.fixture(scope="session")
def device() -> Iterator[object]:
    """A team of one thread: what families compute is the same with more (tests/ops), and workers share the cores."""
    from opsin.config import from_environment
    from opsin.ops.cpu import Cpu

    made = Cpu(from_environment(), threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def truth(known):
    """transformers' model of a family's module, whose `known` is the `Truth`."""
    return known.make()


@pytest.fixture(scope="module")
def tower(open_tower):
    """The encoder of a family's module, whose `open_tower` opens it."""
    return open_tower()


def pytest_sessionfinish() -> None:
    figures.write()
