"""Metadata of a file, held to the types that tokenizers and templates need: files come from strangers.

All raise FileError, naming the key, for a value of another type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from opsin.errors import FileError


def read_int(metadata: Mapping[str, object], key: str) -> int | None:
    """The integer at `key`, or None where there is none."""
    value = metadata.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _wrong(key, value, "an integer")


def read_flag(metadata: Mapping[str, object], key: str, default: bool) -> bool:
    """The boolean at `key`; numbers will do."""
    value = metadata.get(key, default)
    if isinstance(value, bool | int | float):
        return bool(value)
    raise _wrong(key, value, "a boolean")


def read_text(metadata: Mapping[str, object], key: str) -> str | None:
    """The string at `key`, or None where there is none."""
    value = metadata.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _wrong(key, value, "a string")


def read_texts(metadata: Mapping[str, object], key: str) -> Sequence[str]:
    """The list of strings at `key`; empty where there is none. Strings are decoded when they are asked for."""
    value = metadata.get(key, ())
    if isinstance(value, np.ndarray) and not value.size:  # an empty list has no type that matters
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    raise _wrong(key, value, "a list of strings")


def check_utf8(texts: Sequence[str], key: str) -> Sequence[str]:
    """The same texts. Raises FileError where one held bytes that are no UTF-8: not every tokenizer takes those."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        number = next(i for i, text in enumerate(texts) if not text.isascii() and _is_broken(text))
        raise FileError(f"text {number} of {key} is not UTF-8", hint="the file is damaged; download it again") from None
    return texts


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_numbers(metadata: Mapping[str, object], key: str, *, whole: bool = False) -> Sequence[float] | None:
    """The list of numbers at `key`, or None where there is none. `whole`: integers only."""
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, list | tuple | np.ndarray):
        numbers = np.asarray(value)
        if numbers.ndim == 1 and (not numbers.size or numbers.dtype.kind in ("iu" if whole else "iuf")):
            listed: list[float] = numbers.tolist()
            return listed
    raise _wrong(key, value, "a list of integers" if whole else "a list of numbers")


def _wrong(key: str, value: object, wanted: str) -> FileError:
    shown = f"{value!r:.40}" if isinstance(value, str | int | float) else f"of the type {type(value).__name__}"
    return FileError(f"{key} is {shown}, not {wanted}", hint="the file is damaged; download it again")
