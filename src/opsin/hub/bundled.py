"""The model inside the package: small, sees, answers at once and offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from opsin.errors import FileError

NAME = "opsin-nano"
ABOUT = f"{NAME}, the model that comes with opsin: shapes, counts, printed words; not photos"
LARGER = "a large one: -m model.gguf --mmproj mmproj.gguf"


def bundled() -> Path:
    """Its file. Raises FileError where the package came without it."""
    path = _place()
    if not path.is_file():
        raise FileError(f"this opsin came without {NAME}", hint="give a model: -m model.gguf, opsin.load('model.gguf')")
    return path


def is_bundled(path: Path) -> bool:
    """Whether it is the path of that file."""
    return path.resolve() == _place().resolve()


def _place() -> Path:
    return Path(str(files("opsin"))) / "data" / f"{NAME}.gguf"
