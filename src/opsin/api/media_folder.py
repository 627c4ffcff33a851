"""A folder that keeps what pictures became, and the name of the encoder that made it so."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from opsin.engine.media_cache import MediaCache
from opsin.gguf import File

_MAKERS: Final = ("gguf", "media", "models", "nn", "ops", "quants")  # rooms whose code says what embeddings are
_LOOKS, _LOOK_BYTES = 64, 4096  # places of a file that are looked at


@dataclass(frozen=True)
class MediaFolder:
    """Where embeddings of pictures stay after a restart: at most so many bytes, the longest unused go first."""

    path: Path
    bytes: int = 1 << 30

    def open(self, file: File, width: int) -> MediaCache:
        """The cache of the encoder in this file. Raises FileError where nothing can be written there."""
        return MediaCache(self.path, _encoder(file), width, self.bytes)


def _encoder(file: File) -> bytes:
    """What tells an encoder from others: what its file says, when and with which bytes here and there it was written.

    To read all bytes would take longer than a picture. Our own code is in it, too: after an update all is made anew.
    """
    digest = blake2b(digest_size=32)
    for package in ("numpy", "pillow"):
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    root = Path(__file__).parent.parent
    for room in _MAKERS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    for name, info in sorted(file.tensors.items()):
        digest.update(f"{name} {info.type} {info.shape}\n".encode())
    for key, value in sorted(file.metadata.items()):
        if not key.startswith("tokenizer."):
            digest.update(f"{key} {value!r}\n".encode())
    for path in sorted(file.paths):
        known = path.stat()
        digest.update(f"{known.st_size} {known.st_mtime_ns}\n".encode())
        with path.open("rb") as opened:
            for look in range(_LOOKS):
                opened.seek(known.st_size * look // _LOOKS)
                digest.update(opened.read(_LOOK_BYTES))
    return digest.digest()
