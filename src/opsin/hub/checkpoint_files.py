"""Which files of a repository are a checkpoint of transformers: settings, the tokenizer, and safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

SETTINGS: Final = "config.json"
_SMALL: Final = re.compile(r"[^/]{1,200}\.(?:json|jinja)|tokenizer\.model|merges\.txt")
_WEIGHTS: Final = re.compile(r"[^/]{1,200}\.safetensors")


def is_of_checkpoint(name: str) -> bool:
    """Whether a file may belong to one. Those in folders are other forms of the model."""
    return _SMALL.fullmatch(name) is not None or _WEIGHTS.fullmatch(name) is not None


def checkpoint_files(names: Iterable[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Settings and weights of the checkpoint; both empty where there is none."""
    listed = sorted(filter(is_of_checkpoint, names))
    weights = [name for name in listed if _WEIGHTS.fullmatch(name)]
    weights = [name for name in weights if name.startswith("model")] or weights
    if SETTINGS not in listed or not weights:
        return (), ()
    return [name for name in listed if _SMALL.fullmatch(name)], weights
