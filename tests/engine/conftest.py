"""What the tests of the engine share."""

from __future__ import annotations

import pytest

from opsin.config import from_environment
from opsin.gguf import File
from opsin.models import load_decoder
from opsin.nn.module import FileReader
from opsin.ops.cpu import Cpu


@pytest.fixture(scope="module")
def decoder(quantised_file):
    """A device of a module's own, and a tiny model on it."""
    device = Cpu(from_environment(), threads=2)
    with File.open(quantised_file) as file:
        yield device, load_decoder(file, FileReader(file, device.eager()))
    device.close()
