"""What tells a model's file, and the code that computes with it, from all others: for what is kept on disk."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from opsin.gguf import File

_MAKERS: Final = ("gguf", "media", "models", "nn", "ops", "quants")  # rooms whose code says what is computed


def identity_of(file: File) -> str:
    """Of what a file says, when it was written, its size, and its bytes here and there."""
    digest = blake2b(digest_size=32)
    for name, info in sorted(file.tensors.items()):
        digest.update(f"{name} {info.type} {info.shape}\n".encode())
    for key, value in sorted(file.metadata.items()):
        if not key.startswith("tokenizer."):
            digest.update(f"{key} {value!r}\n".encode())
    digest.update(file.stamp())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Of our own code, and of what it computes with: after an update all that is kept is made anew."""
    from importlib.metadata import version

    digest = blake2b(digest_size=32)
    for package in ("numpy", "pillow", "numba"):
        digest.update(f"{package} {version(package)}\n".encode())
    root = Path(__file__).parent.parent
    for room in _MAKERS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
