"""Files that hold what the cache had of one conversation: written, read and put back, also in another process.

A file begins with its kind, a digest of all the rest and the length of its head, which is JSON; the bytes of pages and
states follow as they lie. It is of one model, one kind of cache and one version of opsin.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec
import numpy as np

from opsin.api.identity import code_digest
from opsin.api.model import Model
from opsin.arrays import Bytes
from opsin.engine.kept_rows import KeptRows, forget_rows, read_rows, write_rows
from opsin.errors import FileError, RequestError
from opsin.spans import Canvas, MediaSpan, Prompt, TextSpan

_BEGIN: Final = Struct("<8s32sI")  # magic, digest of all behind it, bytes of the head
_MAGIC: Final = b"opsinRw1"
_MOST_HEAD: Final = 1 << 26


class _Media(msgspec.Struct):
    """What the keys and positions of a piece of media are made of, see `MediaSpan`."""

    digest: bytes
    rows: int
    positions: int
    grid: tuple[int, int] | None
    atomic: bool
    memory: int
    marker: int
    first: int
    encoded: int
    canvas: Canvas | None = None
    time: int | None = None


class _Head(msgspec.Struct):
    """`model` names what the bytes are of; `pages` and `states` are the shapes of what follows, in this order."""

    model: bytes
    rows: int
    salt: bytes
    spans: list[list[int] | _Media]
    pages: dict[str, tuple[int, int]]
    states: dict[str, int]


@dataclass(frozen=True)
class Restored:
    """Rows that were put back, the prompt whose they are, and the bytes of the file."""

    prompt: Prompt
    rows: int
    bytes: int


def save_rows(model: Model, prompt: Prompt, path: Path, most: int | None = None) -> tuple[int, int]:
    """Write what the cache holds of a prompt: its rows, and the bytes of the file.

    Raises FileError where the file cannot be written, RequestError where all files of its folder would have more than
    `most` bytes.
    """
    kept = model.engine.call(lambda: read_rows(model.engine, model.runner, prompt))
    head = msgspec.json.encode(_Head(
        _identity(model), kept.rows, prompt.salt, [_told(span) for span in prompt.spans],
        {name: (len(pages), pages.shape[1]) for name, pages in kept.pages.items()},
        {name: len(state) for name, state in kept.states.items()},
    ))  # fmt: skip
    parts: list[bytes | memoryview] = [head]
    parts.extend(part.reshape(-1).data for part in (*kept.pages.values(), *kept.states.values()))
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    size = _BEGIN.size + sum(map(len, parts))
    try:
        used = 0 if most is None else _bytes_beside(path)
        if most is not None and used + size > most:
            what = f"{size} bytes beside the {used} of other files are more than the {most} that may be saved"
            raise RequestError(what, hint="save under a name that is there, or remove files")
        _write(path, [_BEGIN.pack(_MAGIC, digest.digest(), len(head)), *parts])
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}", hint="look at its disk") from error
    return kept.rows, size


def _bytes_beside(path: Path) -> int:
    """Of all other files of its folder, in which others may save just now."""
    total = 0
    for one in path.parent.iterdir():
        with suppress(FileNotFoundError):  # it has got its name
            total += one.stat().st_size if one != path else 0
    return total


def restore_rows(model: Model, path: Path) -> Restored:
    """Put back what `save_rows` wrote, for whoever begins with the same rows.

    Raises RequestError for what is no such file, is damaged, of another model, or has no room now.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path.name} cannot be read: {error.strerror or error}", hint="save it first") from error
    head, at = _head(path, data)
    if any(isinstance(span, _Media) for span in head.spans) and model.senses is None:
        # llama-server's clients look for these words
        raise RequestError("Cannot restore media tokens without an mmproj", hint="load the model with its mmproj")
    if head.model != _identity(model):
        what = f"{path.name} is of another model, another kind of cache or another version of opsin"
        raise RequestError(what, hint="save it again")
    prompt, kept = Prompt(tuple(_span(span) for span in head.spans), head.salt), _kept(head, data, at)
    model.engine.call(lambda: write_rows(model.engine, model.runner, prompt, kept))
    return Restored(prompt, head.rows, len(data))


def erase_rows(model: Model, prompt: Prompt) -> int:
    """The cache finds nothing of a prompt any more; how many rows it had."""
    return model.engine.call(lambda: forget_rows(model.engine, model.runner, prompt))


def _kept(head: _Head, data: bytes, at: int) -> KeptRows:
    """What stands behind the head, from the byte `at` on."""
    whole = np.frombuffer(data, np.uint8)
    pages: dict[str, Bytes] = {}
    for name, (count, each) in head.pages.items():
        pages[name] = whole[at : at + count * each].reshape(count, each)
        at += count * each
    states: dict[str, Bytes] = {}
    for name, size in head.states.items():
        states[name] = whole[at : at + size]
        at += size
    return KeptRows(head.rows, pages, states)


def _identity(model: Model) -> bytes:
    groups = sorted((name, pages.read(()).shape[1]) for name, pages in model.runner.pages.items())
    sees = None if model.senses is None else model.senses.identity
    told = f"{model.facts.identity} {code_digest()} {groups} {sees}"
    return blake2b(told.encode(), digest_size=16).digest()


def _head(path: Path, data: bytes) -> tuple[_Head, int]:
    """The head of a file, and where the rest begins."""
    damaged = RequestError(f"{path.name} is damaged, or no saved slot", hint="save it again")
    if len(data) < _BEGIN.size:
        raise damaged
    magic, digest, size = _BEGIN.unpack(data[: _BEGIN.size])
    rest = memoryview(data)[_BEGIN.size :]
    if magic != _MAGIC or size > min(_MOST_HEAD, len(rest)) or blake2b(rest, digest_size=32).digest() != digest:
        raise damaged
    try:
        head = msgspec.json.decode(rest[:size], type=_Head)
    except msgspec.MsgspecError:
        raise damaged from None
    sizes = [number for shape in (*head.pages.values(), head.states.values()) for number in shape]
    told = sum(count * each for count, each in head.pages.values()) + sum(head.states.values())
    if any(number < 0 for number in sizes) or size + told != len(rest):
        raise damaged
    return head, _BEGIN.size + size


def _told(span: TextSpan | MediaSpan) -> list[int] | _Media:
    if isinstance(span, TextSpan):
        return list(span.ids)
    return _Media(
        span.digest, span.rows, span.positions, span.grid, span.atomic, span.memory, span.marker, span.first,
        span.encoded, span.canvas, span.time,
    )  # fmt: skip


def _span(told: list[int] | _Media) -> TextSpan | MediaSpan:
    if isinstance(told, list):
        return TextSpan(tuple(told))
    return MediaSpan(
        told.digest, told.rows, told.positions, told.grid, told.atomic, told.memory, told.marker, told.first,
        told.encoded, canvas=told.canvas, time=told.time,
    )  # fmt: skip


def _write(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Beside it first, so that what stood there is there until the new one is whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
