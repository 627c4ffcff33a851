"""Names of models in stores: `ollama:name:tag`. One reader a scheme, each in a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from opsin.hub import hugging_face, ollama
from opsin.hub.found import Found, Notice


@dataclass(frozen=True)
class Query:
    """What is asked of a store.

    Attributes:
        name: what follows the scheme.
        vision: whether the part for pictures is query.
        notice: told, in a line, when something slow happens.
    """

    name: str
    vision: bool = True
    notice: Notice | None = None


READERS: Final[Mapping[str, Callable[[Query], Found]]] = {
    "hf": lambda query: hugging_face.find(query.name, vision=query.vision, notice=query.notice),
    "ollama": lambda query: ollama.find(query.name),
}


def is_place(path: object) -> bool:
    """Whether it is a name in a store and no file's: a text that begins with a scheme. A `Path` is always a file's."""
    return isinstance(path, str) and path.partition(":")[0] in READERS and ":" in path


def locate(place: str, *, vision: bool = True, notice: Notice | None = None) -> Found:
    """The files of a model. Raises FileError where the store has none of this name, or holds something else."""
    scheme, _, name = os.fspath(place).partition(":")
    return READERS[scheme](Query(name, vision, notice))
