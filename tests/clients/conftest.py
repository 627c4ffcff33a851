"""Addresses of the servers that run.py started, or of one that the suite starts."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def text_address() -> str:
    """OpenAI's base address at a model of text."""
    return os.environ["OPSIN_TEXT"]


@pytest.fixture(scope="session")
def sight_address() -> str:
    """The same at a model that sees."""
    return os.environ["OPSIN_SIGHT"]
