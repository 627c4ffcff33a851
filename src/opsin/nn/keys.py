"""Numbers of a file's metadata that a network cannot do without being sensible."""

from __future__ import annotations

import math

from opsin.errors import ModelError
from opsin.gguf import File


def positive_int(file: File, key: str, default: int | None = None) -> int:
    """Raises ModelError, naming the key, for less than one."""
    value = file.get_int(key, default)
    if value < 1:
        raise _wrong(file, key, value)
    return value


def positive_float(file: File, key: str, default: float | None = None) -> float:
    """Raises ModelError, naming the key, for anything but a finite number above nothing."""
    value = file.get_float(key, default)
    if not 0 < value < math.inf:
        raise _wrong(file, key, value)
    return value


def _wrong(file: File, key: str, value: float) -> ModelError:
    return ModelError(f"{file.path}: {key} is {value}", hint="the file is damaged; download it again")
