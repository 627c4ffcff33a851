"""The command as a process of its own, and the real model that it is given."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from opsin_process import COMMAND, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2's file: from the installed package, or downloaded once into the cache."""
    path = Path(__file__).parents[2] / "tools" / "fetch_smollm2.py"
    spec = importlib.util.spec_from_file_location("fetch_smollm2_for_cli", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    cache = Path(platformdirs.user_cache_dir("opsin", appauthor=False)) / "models"
    found: Path = tool.installed() or tool.fetch(Path(os.environ.get("OPSIN_TEST_CACHE") or cache))
    return found


@pytest.fixture
def run() -> Run:
    """run("chat", ..., stdin="...", OPSIN_DEBUG="1") starts the command and waits."""

    def start(*arguments: object, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, encoding="utf-8",
            env=environment(**variables), timeout=240, check=False,
        )  # fmt: skip

    return start
