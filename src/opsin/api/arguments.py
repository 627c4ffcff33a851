"""Texts and ids that people hand in, checked where they come in: what is wrong is told, and not met inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeVar

import numpy as np

from opsin.errors import RequestError

_Kind = TypeVar("_Kind")
_IDS = "give a list of whole numbers"


def check_type(given: object, kind: type[_Kind], name: str, hint: str | None = None) -> _Kind:
    """The same, if it is of this kind; else RequestError."""
    if not isinstance(given, kind):
        raise RequestError(f"{name} is of the type {type(given).__name__}", hint=hint or f"give a {kind.__name__}")
    return given


def check_texts(texts: object, name: str) -> None:
    """Raises RequestError for what is no collection of texts; a single text is none."""
    known = texts if isinstance(texts, Sequence | Set) and not isinstance(texts, str) else [None]
    if not all(isinstance(text, str) for text in known):
        raise RequestError(f"{name}={texts!r:.80}", hint='give a list of texts, as ["END"]')


def check_functions(given: object, name: str) -> None:
    """Raises RequestError for what is no mapping of names to functions. None is none of them."""
    if given is not None and not (isinstance(given, Mapping) and all(callable(made) for made in given.values())):
        raise RequestError(f"{name}={given!r:.80}", hint="give {name: function}")


def check_whole(given: object, name: str, *, least: int = 1, most: int = (1 << 31) - 1) -> None:
    """Raises RequestError for what is no whole number from `least` on."""
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise RequestError(f"{name}={given!r:.80}", hint=f"give a whole number from {least} on")


def check_ids(ids: object, vocabulary: int) -> list[int]:
    """Ids as ints. Raises RequestError for what is no sequence of them, or lies outside the vocabulary."""
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | bytearray | memoryview | Mapping):
        raise RequestError(f"ids of the type {type(ids).__name__}", hint=_IDS)
    found: list[int] = []
    for id in ids if getattr(ids, "ndim", 1) else ():
        if not isinstance(id, int | np.integer) or isinstance(id, bool):
            raise RequestError(f"{id!r:.80} is no id", hint=_IDS)
        if not 0 <= id < vocabulary:
            raise RequestError(f"id {int(id)} lies outside the vocabulary of {vocabulary}")
        found.append(int(id))
    return found
