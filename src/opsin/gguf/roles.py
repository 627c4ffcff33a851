"""Which part of a model a tensor belongs to, by its name."""

from __future__ import annotations

from typing import Final

_OTHERS: Final = ("v.", "a.", "mm.", "resampler.", "adapter.", "model.image_newline")


def is_projector(name: str) -> bool:
    """Whether a tensor belongs to a part for pictures or sound, by old names too."""
    return name.startswith(_OTHERS)
