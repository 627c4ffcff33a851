"""Material for the tests of text: a small model's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from opsin.gguf import File


@pytest.fixture(scope="session")
def smollm(smollm2: Path) -> Mapping[str, object]:
    """SmolLM2's metadata."""
    with File.open(smollm2) as file:
        return dict(file.metadata)
