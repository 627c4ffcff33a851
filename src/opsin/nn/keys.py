"""Numbers of a file's metadata that a network cannot do without being sensible: bounded where they are read.

A number that passes here fits into what kernels, positions and tables of 32 bits count with.
"""

from __future__ import annotations

from opsin.errors import ModelError
from opsin.gguf import File

MOST = (1 << 31) - 1
LEAST_FLOAT, MOST_FLOAT = 1e-30, 1e30  # well within float32


def positive_int(file: File, key: str, default: int | None = None) -> int:
    """Raises ModelError, naming the key, for less than one and more than MOST."""
    value = file.get_int(key, default)
    if not 1 <= value <= MOST:
        raise _wrong(file, key, value)
    return value


def positive_float(file: File, key: str, default: float | None = None) -> float:
    """Raises ModelError, naming the key, for anything but a number above nothing that float32 can hold."""
    return number(file, key, default, least=LEAST_FLOAT, most=MOST_FLOAT)


def number(file: File, key: str, default: float | None = None, *, least: float, most: float) -> float:
    """Raises ModelError, naming the key, for less, for more, and for what is no number."""
    value = file.get_float(key, default)
    if not least <= value <= most:
        raise _wrong(file, key, value)
    return value


def _wrong(file: File, key: str, value: float) -> ModelError:
    return ModelError(f"{file.path}: {key} is {value}", hint="the file is damaged; download it again")
