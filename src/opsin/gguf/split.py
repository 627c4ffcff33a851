"""Models split into several files, named `PREFIX-00001-of-00003.gguf` and so on.

The first holds the metadata; each holds whole tensors and counts them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from opsin.errors import FileError
from opsin.gguf.header import Header, TensorInfo, open_header
from opsin.gguf.open_file import OpenFile

NUMBER_KEY = "split.no"
COUNT_KEY = "split.count"
TENSORS_KEY = "split.tensors.count"
SPLIT_KEYS = (NUMBER_KEY, COUNT_KEY, TENSORS_KEY)
MAX_PARTS = (1 << 16) - 1
_PATTERN = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def name_part(prefix: str, index: int, count: int) -> str:
    """The file name of part `index`, counted from 0, of `count`."""
    return f"{prefix}-{index + 1:05}-of-{count:05}.gguf"


def open_parts(path: Path) -> list[Header]:
    """Open the file at `path`, and its other parts if it is the first of several.

    Raises FileError if it is another than the first, or if parts are missing or do not belong together.
    """
    headers = [open_header(OpenFile(path))]
    try:
        count = _read_key(headers[0], COUNT_KEY, default=1)
        if count > 1:
            prefix = _check_first(headers[0], count)
            for index in range(1, count):
                headers.append(_open_next(path.with_name(name_part(prefix, index, count)), index, count))
            _check_tensor_count(headers)
    except BaseException:
        for header in headers:
            header.part.close()
        raise
    return headers


def merge_tensors(headers: Iterable[Header]) -> dict[str, TensorInfo]:
    """The tensors of several files under one roof. Raises FileError naming both files if a name is in two."""
    merged: dict[str, TensorInfo] = {}
    homes: dict[str, Path] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in merged:
                raise FileError(
                    f"tensor {name!r} is both in {homes[name]} and in {header.part.path}",
                    hint="these files do not belong together",
                )
            merged[name] = info
            homes[name] = header.part.path
    return merged


def _check_first(header: Header, count: int) -> str:
    """The prefix of the names of all parts, if `header` is the first of `count`."""
    path = header.part.path
    number = _read_key(header, NUMBER_KEY, default=0)
    match = _PATTERN.fullmatch(path.name)
    if number != 0:
        first = name_part(match["prefix"] if match else "PREFIX", 0, count)
        raise FileError(f"{path} is part {number + 1} of {count}", hint=f"open the first part, {first}")
    if match is None or int(match["number"]) != 1 or int(match["count"]) != count:
        raise FileError(
            f"{path} is the first of {count} parts, but its name does not say so",
            hint=f"name the parts {name_part('PREFIX', 0, count)} and so on",
        )
    return match["prefix"]


def _open_next(path: Path, index: int, count: int) -> Header:
    """Open part `index`, checking that it says so itself."""
    if not path.exists():
        raise FileError(f"{path} is missing", hint=f"all {count} parts must lie in one folder; fetch it too")
    header = open_header(OpenFile(path), index)
    try:
        for key, wanted in ((NUMBER_KEY, index), (COUNT_KEY, count)):
            found = _read_key(header, key, default=None)
            if found != wanted:
                raise FileError(
                    f"{path}: key {key!r} is {found}, not {wanted}",
                    hint="this part is of another model; fetch it again",
                )
    except BaseException:
        header.part.close()
        raise
    return header


def _check_tensor_count(headers: list[Header]) -> None:
    found = sum(len(header.tensors) for header in headers)
    wanted = _read_key(headers[0], TENSORS_KEY, default=found)
    if found != wanted:
        raise FileError(
            f"{headers[0].part.path}: key {TENSORS_KEY!r} is {wanted}, but the {len(headers)} parts hold {found}",
            hint="the parts are not of one model; fetch them again",
        )


def _read_key(header: Header, key: str, *, default: int | None) -> int:
    """A number about splits, which every writer gives another width."""
    value = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FileError(f"{header.part.path}: key {key!r} is {value!r:.80}, not a count", hint="split the model again")
    return value
