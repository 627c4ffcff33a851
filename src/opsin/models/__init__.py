"""Model families, one a file: found by listing this folder, so that a new family is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Protocol

from opsin.errors import ModelError
from opsin.gguf import File
from opsin.nn.batch import Batch, GroupShape
from opsin.nn.module import Reader
from opsin.ops import Array


class Decoder(Protocol):
    """A text decoder: ids in, logits out."""

    @property
    def groups(self) -> Mapping[str, GroupShape]:
        """Its KV groups: "self", and others that it reads."""
        ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def context(self) -> int:
        """Positions that it was trained for."""
        ...

    def forward(self, batch: Batch) -> Array:
        """Logits [outputs, vocabulary] of the rows that the batch wants."""
        ...


class DecoderFamily(Protocol):
    """What a family's file offers: `load`, under the architectures that it names in DECODERS."""

    def load(self, file: File, source: Reader) -> Decoder: ...


def architectures() -> dict[str, str]:
    """Architecture to the module that knows it."""
    found: dict[str, str] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        for name in module.DECODERS:
            assert name not in found, f"{name} stands in {found[name]} and {entry.name}"
            found[name] = entry.name
    return found


def load_decoder(file: File, source: Reader) -> Decoder:
    """The decoder of a file. Raises ModelError for an architecture that nobody here knows."""
    name = file.get_str("general.architecture")
    known = architectures()
    if name not in known:
        listed = ", ".join(sorted(known))
        raise ModelError(f"{file.path}: architecture {name!r} is not supported", hint=f"supported: {listed}")
    family = importlib.import_module(f"{__name__}.{known[name]}")
    decoder: Decoder = family.DECODERS[name].load(file, source)
    return decoder
