"""Packages that carry material for tests, downloaded; nothing of them is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def download(package: str, version: str, folder: Path, *, source: bool = False) -> Path | str:
    """The wheel, or the source archive; or, as a text, why it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--no-binary", package] if source else []
    try:
        done = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        return f"downloading {package} took too long"
    archive = next(folder.glob("*.tar.gz" if source else "*.whl"), None)
    return archive or f"{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}"
