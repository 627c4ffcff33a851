"""Names of models in stores: `ollama:name:tag`. One reader a scheme, each in a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsin.errors import RequestError
from opsin.hub.found import Found, Notice


@dataclass(frozen=True)
class Query:
    """What is asked of a store.

    Attributes:
        name: what follows the scheme.
        vision: whether the part for pictures is asked for.
        notice: told, in a line, when something slow happens.
        checkpoint: whether safetensors are asked for, and no GGUF.
        check: gets the folder of safetensors when its settings are there; what it raises ends the work.
    """

    name: str
    vision: bool = True
    notice: Notice | None = None
    checkpoint: bool = False
    check: Callable[[Path], None] = lambda folder: None


def _of_hub(query: Query) -> Found:
    from opsin.hub import hugging_face

    return hugging_face.find(
        query.name, vision=query.vision, notice=query.notice, checkpoint=query.checkpoint, check=query.check
    )


def _of_ollama(query: Query) -> Found:
    from opsin.hub import ollama

    if query.checkpoint:
        raise RequestError(f"ollama:{query.name:.100} is no checkpoint of transformers",
                           hint="it is GGUF already: opsin quantize and opsin merge take it")  # fmt: skip
    return ollama.find(query.name)


READERS: Final[Mapping[str, Callable[[Query], Found]]] = {"hf": _of_hub, "ollama": _of_ollama}


def is_place(path: object) -> bool:
    """Whether it is a name in a store and no file's: a text that begins with a scheme. A `Path` is always a file's."""
    return isinstance(path, str) and path.partition(":")[0] in READERS and ":" in path


def locate(
    place: str, *, vision: bool = True, notice: Notice | None = None, checkpoint: bool = False,
    check: Callable[[Path], None] = lambda folder: None,
) -> Found:  # fmt: skip
    """The files of a model; more in `Query`.

    Raises FileError where the store has none of this name, or holds something else.
    """
    scheme, _, name = os.fspath(place).partition(":")
    return READERS[scheme](Query(name, vision, notice, checkpoint, check))
