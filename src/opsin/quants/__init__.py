"""Number formats of GGUF tensors: how each is decoded, encoded, and laid out for kernels.

A format is one file in this folder, which names its types in `TYPES`; files that begin with an underscore are shared
parts. This room knows blocks of bytes, not files, tensors or devices.
"""

from __future__ import annotations

import importlib
import pkgutil

from opsin.arrays import Bytes, Floats
from opsin.errors import FileError
from opsin.quants._format import Half, Planes, QuantType, Unpack

__all__ = ["BY_NAME", "TYPES", "Bytes", "Floats", "Half", "Planes", "QuantType", "Unpack", "by_id"]

# Ids that ggml once gave out and took back: a file that holds one must be made again.
_WITHDRAWN = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


def _find_types() -> dict[int, QuantType]:
    found: dict[int, QuantType] = {}
    for entry in pkgutil.iter_modules(__path__):
        if entry.name.startswith("_"):
            continue
        types: tuple[QuantType, ...] = importlib.import_module(f"{__name__}.{entry.name}").TYPES
        for kind in types:
            assert kind.id not in found, f"{kind.name} and {found[kind.id].name} share the id {kind.id}"
            found[kind.id] = kind
    return dict(sorted(found.items()))


TYPES = _find_types()
BY_NAME = {kind.name: kind for kind in TYPES.values()}


def by_id(id: int) -> QuantType:
    """The format with this ggml id; FileError where there is none."""
    if id in TYPES:
        return TYPES[id]
    if id in _WITHDRAWN:
        raise FileError(
            f"number format {id} ({_WITHDRAWN[id]}) was withdrawn from GGUF",
            hint="take a newer file of this model, or quantise it again",
        )
    raise FileError(f"number format {id} is unknown", hint="the file is damaged, or newer than this version of opsin")
