"""Files in Ollama's words, written by hand from a pair of ours, so that `gguf.dialect` is not believed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.gguf import File, NewTensor, write
from opsin.quants import by_id

Tensors = dict[str, NDArray[np.generic]]  # as they lie: floats, or blocks of bytes a row


@dataclass(frozen=True)
class Foreign:
    """How Ollama tells a family's files.

    Attributes:
        architecture: general.architecture of such a file.
        truth: the name of the model in TOWERS.
        implied: keys that the plain pair has so, because nothing in the other file says them; None for none.
        same: keys of the tower that have the same names behind `{architecture}.vision.`.
        keys: (keys of the pair) -> those that are told otherwise, and those that are more, behind the architecture.
        dropped: keys of the text that such a file does not have.
        tensors: patterns of the tower's names, and theirs.
        change: the last word on all tensors, of these kinds.
    """

    architecture: str
    truth: str
    same: Sequence[str]
    tensors: Sequence[tuple[str, str]]
    implied: Mapping[str, object] = field(default_factory=dict)
    keys: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda keys: {}
    dropped: Sequence[str] = ()
    change: Callable[[Tensors, dict[str, int]], Tensors] = lambda tensors, kinds: tensors


def plain_pair(foreign: Foreign, folder: Path, model: Path, eyes: Path) -> tuple[Path, Path]:
    """The pair with what is implied, in llama.cpp's words."""
    made = []
    for path in (model, eyes):
        with File.open(path) as file:
            own = "clip." if path == eyes else f"{file.get_str('general.architecture')}."
            implied = {key: value for key, value in foreign.implied.items() if key.startswith(own)}
            keys = {key: value for key, value in {**file.typed, **implied}.items() if value is not None}
            made += write(folder / f"plain-{path.name}", keys, [file.copy_tensor(name) for name in file.tensors])
    return made[0], made[1]


def write_foreign(path: Path, foreign: Foreign, model: Path, eyes: Path) -> Path:
    """The pair as one file in other words."""
    with File.open(model) as text, File.open(eyes) as tower:
        begins, arch = f"{text.get_str('general.architecture')}.", f"{foreign.architecture}."
        told = {
            key.replace(begins, arch, 1) if key.startswith(begins) else key: value
            for key, value in text.typed.items()
            if key.removeprefix(begins) not in foreign.dropped
        }
        told |= {f"{arch}vision.{name}": tower.typed[f"clip.vision.{name}"] for name in foreign.same}
        for key, value in foreign.keys({**text.metadata, **tower.metadata}).items():
            told[key if key.startswith("tokenizer.") else arch + key] = value
        told["general.architecture"] = foreign.architecture
        values = {name: _blocks(text, name) for name in text.tensors}
        kinds = {name: info.type for file in (text, tower) for name, info in file.tensors.items()}
        for name in tower.tensors:
            new = name
            for pattern, theirs in foreign.tensors:
                new = re.sub(pattern, theirs, new)
            values[new], kinds[new] = _blocks(tower, name), kinds[name]
    values = foreign.change(values, kinds)
    tensors = [NewTensor(name, _shape(rows, kinds[name]), kinds[name], _bytes(rows)) for name, rows in values.items()]
    return write(path, told, tensors)[0]


def _blocks(file: File, name: str) -> NDArray[np.uint8]:
    """[..., bytes of a row] of a tensor."""
    return file.read(name).reshape(*file.tensors[name].shape[:-1], -1)


def _shape(rows: NDArray[np.generic], kind: int) -> tuple[int, ...]:
    known = by_id(kind)
    return *rows.shape[:-1], rows.shape[-1] // known.bytes * known.elements


def _bytes(rows: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
