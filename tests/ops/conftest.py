"""Devices for the tests of operations. Kernels are kept in the ordinary cache folder, so a second run is warm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from opsin.config import from_environment
from opsin.ops.cpu import Cpu

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/tiny.py


@pytest.fixture(scope="session")
def cpu():
    device = Cpu(from_environment(), threads=2)
    yield device
    device.close()


@pytest.fixture
def ops(cpu):
    return cpu.eager()


@pytest.fixture(scope="session")
def teams(cpu):
    """The same device with 1, 2 and 3 threads, by their number."""
    others = {threads: Cpu(from_environment(), threads=threads) for threads in (1, 3)}
    yield {1: others[1], 2: cpu, 3: others[3]}
    for device in others.values():
        device.close()
