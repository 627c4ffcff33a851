"""Files in other words: text and a part for pictures in one, under names of Ollama's.

Such a file is told in llama.cpp's words when it is opened, so that whoever reads it never sees others. Names, keys and
places are told otherwise; no weight is copied. What all such files share stands here: `{architecture}.vision.*` are
keys of the tower, and `v.*` and `mm.*` its tensors. What is a family's own it lists as DIALECTS: plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from opsin.errors import FileError
from opsin.gguf.file import File
from opsin.gguf.header import TensorInfo
from opsin.gguf.roles import PROJECTOR, is_projector
from opsin.gguf.value import Typed, Value, find_type

_TOKENS, _OF_TOKENS = "token_embd.weight", ("tokens", "scores", "token_type")
_MOST_PIECES = 1 << 18  # of a tensor; published ones have some thousands
_FETCH = "the file is damaged or incomplete; fetch it again"


def _same(info: TensorInfo, file: File) -> Iterable[TensorInfo]:
    return (info,)


@dataclass(frozen=True)
class Dialect:
    """How files of one architecture are told.

    Attributes:
        architecture: their general.architecture, with which their keys begin.
        becomes: that of the text alone. Keys of the former become those of the latter; `vision.*` become clip.vision.*.
        projector: clip.projector_type; "" where such files hold a text alone.
        keys: those that are called otherwise, without their beginning; "" for one that says nothing true. New names
            that begin with "clip." are whole.
        values: what such files never say, or not all of them: whole keys.
        found: what follows from all that the file says, told already: whole keys, which replace others.
        tensors: parts of names of the tower's tensors, whole between dots, that are called otherwise.
        text: the same of the text's tensors.
        change: what becomes of one of the tower's tensors, told already: see `neighbour_rows` and `planes`.
    """

    architecture: str
    becomes: str
    projector: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    found: Callable[[File], Mapping[str, Value]] = lambda file: {}
    tensors: Mapping[str, str] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[TensorInfo, File], Iterable[TensorInfo]] = _same


def translate(file: File, dialects: Sequence[Dialect]) -> File:
    """The same open file in llama.cpp's words; `file` itself where it speaks them already.

    Raises FileError for one that does so by half.
    """
    said = file.metadata.get("general.architecture")
    dialect = next((entry for entry in dialects if entry.architecture == said), None)
    if dialect is None or any(key.startswith(f"{PROJECTOR}.") for key in file.metadata):
        return file
    sees, tensors = _sees(file, dialect), _renamed(file, dialect)
    foreign = sees or dialect.becomes != said or tensors.keys() != file.tensors.keys() or any(
        new and f"{dialect.architecture}.{old}" in file.metadata for old, new in dialect.keys.items()
    )  # fmt: skip
    if not foreign:
        return file
    told = file.restated(_keys(file, dialect, sees=sees), tensors)
    try:
        told = told.with_keys({**_cut_tokens(told), **dialect.found(told)})
    except ValueError as error:  # what follows from its numbers is none that a file can hold
        raise FileError(f"{file.path}: {error}", hint=_FETCH) from error
    return told.restated(told.typed, _changed(told, dialect)) if sees else told


def _sees(file: File, dialect: Dialect) -> bool:
    """Whether it holds a part for pictures. Raises FileError where keys and tensors do not agree."""
    if not dialect.projector:
        return False
    key = f"{dialect.architecture}.vision.block_count"
    holds = next(filter(is_projector, file.tensors), None)
    if holds is None and key in file.metadata:
        raise FileError(f"{file.path} says {key}, but holds no tensors for pictures (v.*, mm.*)", hint=_FETCH)
    if holds is not None and key not in file.metadata:
        raise FileError(f"{file.path} holds tensors for pictures ({holds:.80}), but says no {key}", hint=_FETCH)
    return holds is not None


def _keys(file: File, dialect: Dialect, *, sees: bool) -> dict[str, Typed]:
    begins, typed = f"{dialect.architecture}.", file.typed
    told = {key: value for key, value in typed.items() if not key.startswith(begins)}
    for called in (False, True):  # what is called right already counts
        for key, value in typed.items():
            rest = key.removeprefix(begins)
            if key.startswith(begins) and (rest in dialect.keys) == called:
                told.setdefault(_name(rest, dialect), value)
    told.pop("", None)
    alone = sees and _TOKENS not in file.tensors
    told["general.architecture"] = find_type(PROJECTOR if alone else dialect.becomes)
    if not sees:
        return told
    width = told.get(f"{dialect.becomes}.embedding_length")
    values = {"clip.has_vision_encoder": True, "clip.projector_type": dialect.projector, **dialect.values}
    usual = {key: find_type(value) for key, value in values.items()}
    if width is not None:
        usual["clip.vision.projection_dim"] = width
    return usual | told


def _name(rest: str, dialect: Dialect) -> str:
    new = dialect.keys.get(rest, f"{PROJECTOR}.{rest}" if rest.startswith("vision.") else rest)
    return new if not new or new.startswith(f"{PROJECTOR}.") else f"{dialect.becomes}.{new}"


def _renamed(file: File, dialect: Dialect) -> dict[str, TensorInfo]:
    return _by_name(file, (replace(info, name=_tensor(name, dialect)) for name, info in file.tensors.items()))


def _tensor(name: str, dialect: Dialect) -> str:
    told = f".{name}."
    for old, new in (dialect.tensors if is_projector(name) else dialect.text).items():
        is_right = new.startswith(old) and f".{new}." in told
        told = told if is_right else told.replace(f".{old}.", f".{new}.")
    return told[1:-1]


def _changed(file: File, dialect: Dialect) -> dict[str, TensorInfo]:
    infos = file.tensors.values()
    return _by_name(file, (new for info in infos for new in _parts(info, file, dialect)))


def _parts(info: TensorInfo, file: File, dialect: Dialect) -> Iterable[TensorInfo]:
    return dialect.change(info, file) if is_projector(info.name) else (info,)


def _by_name(file: File, infos: Iterable[TensorInfo]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for info in infos:
        if info.name in found:
            raise FileError(f"{file.path} holds tensor {info.name:.80} under two names", hint=_FETCH)
        found[info.name] = info
    return found


def _cut_tokens(file: File) -> dict[str, Value]:
    """The vocabulary without tokens behind those that have embeddings: nobody can read or write them."""
    if _TOKENS not in file.tensors:
        return {}
    rows = file.tensors[_TOKENS].shape[0]
    lists = {key: file.metadata.get(key) for key in (f"tokenizer.ggml.{name}" for name in _OF_TOKENS)}
    return {
        key: value[:rows]
        for key, value in lists.items()
        if value is not None and not isinstance(value, str | int | float) and len(value) > rows
    }


def neighbour_rows(info: TensorInfo, file: File) -> TensorInfo:
    """Of the tower's heads: rows stand in two halves that turn together, and are read as neighbouring pairs."""
    heads, rows = file.get_int("clip.vision.attention.head_count"), info.shape[0]
    half = rows // (2 * heads) if heads > 0 else 0
    if rows != 2 * half * heads:
        raise FileError(f"{file.path}: {info.name} has {rows} rows, which are no pairs of {heads} heads", hint=_FETCH)
    order = (head * 2 * half + part * half + pair for head in range(heads) for pair in range(half) for part in (0, 1))
    return _in_pieces(info, order, rows, file)


def planes(info: TensorInfo, names: Sequence[str], shape: tuple[int, ...], file: File) -> list[TensorInfo]:
    """A tensor [n, planes, ...] as one of `shape` for each plane, under these names."""
    count, rows = len(names), info.shape[0]
    if info.elements != count * prod(shape) or info.shape[1:2] != (count,) or info.kind.block_elements > 1:
        raise FileError(f"{file.path}: {info.name} is {info.shape}, which is no {count} of {shape}", hint=_FETCH)
    whole = replace(info, shape=shape, nbytes=info.nbytes // count)
    orders = (range(plane, rows * count, count) for plane in range(count))
    return [replace(_in_pieces(whole, order, rows, file), name=name) for name, order in zip(names, orders, strict=True)]


def _in_pieces(info: TensorInfo, order: Iterable[int], count: int, file: File) -> TensorInfo:
    if count > _MOST_PIECES or info.nbytes % count:
        raise FileError(f"{file.path}: {info.name} is {info.shape}, of {info.kind.name}", hint=_FETCH)
    return replace(info, pieces=tuple(order))
