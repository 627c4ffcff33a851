"""A checkpoint of transformers becomes GGUF: one file, a model and its mmproj, or a file that is read, not written.

Executes what families list as RULES. Tensors are read and changed one at a time; those that are not changed, some rows
at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from opsin.convert.assumptions import check_assumptions
from opsin.convert.checkpoint import Checkpoint, Description
from opsin.convert.matching import find_rules
from opsin.convert.pooling import pooling_part
from opsin.convert.ranking import ranking_part
from opsin.convert.speech import open_checkpoint
from opsin.convert.vocabulary import vocabulary_keys
from opsin.errors import FileError, ModelError, RequestError
from opsin.gguf import File, MadeRows, NewTensor, Typed, ValueType, check_target, open_unwritten, write
from opsin.gguf.roles import PROJECTOR, is_checkpoint_media
from opsin.gguf.rules import Key, Rules, Settings, Tensor
from opsin.gguf.text_rules import EXPERTS
from opsin.gguf.writer import Writable
from opsin.quants import BY_NAME, QuantType

Format = Literal["auto", "f32", "f16", "bf16", "q8_0"]
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}  # llama.cpp's numbers
_RUN = 1 << 20  # values that are compared or encoded at once


@dataclass
class NewFile:
    """What a file will hold."""

    metadata: dict[str, Writable] = field(default_factory=dict)
    tensors: list[NewTensor] = field(default_factory=list)


@dataclass(frozen=True)
class Converted:
    """What was made.

    Attributes:
        paths: the files.
        notes: what the checkpoint knows and the files do not, a line each.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def convert(
    folder: str | Path, out: str | Path, *, mmproj: str | Path | None = None, format: Format = "auto",
    vision: bool = True,
) -> Converted:  # fmt: skip
    """Write `folder` as GGUF.

    Args:
        folder: holds config.json, *.safetensors and the tokenizer.
        out: the model. It holds the part for pictures as well, where there is one and `mmproj` is not given.
        mmproj: a file for the part for pictures.
        format: of matrices; auto takes bf16 or f16, as the checkpoint has it.
        vision: whether to convert the part for pictures.

    Raises FileError for a folder that is incomplete or damaged, ModelError for a model that no rule knows.
    """
    with open_checkpoint(Path(folder)) as checkpoint:
        for target in (out, *([mmproj] if mmproj is not None else [])):
            check_target(Path(target), checkpoint.paths)
        if mmproj is not None and len(find_rules(checkpoint, vision=vision)) == 1:
            raise ModelError(f"{folder} has no part for pictures", hint="leave mmproj away")
        if mmproj is not None and Path(mmproj).resolve() == Path(out).resolve():
            raise RequestError(f"{out} cannot hold the model and the part for pictures", hint="leave mmproj away")
        model, seen, notes = _contents(checkpoint, format, vision=vision)
        if mmproj is None:
            whole = {**seen.metadata, **model.metadata}
            return Converted(tuple(write(out, whole, [*model.tensors, *seen.tensors])), notes)
        general = _general(checkpoint, PROJECTOR, "mmproj", _format(checkpoint, format))
        first = write(mmproj, {**general, **seen.metadata}, seen.tensors)
        try:
            return Converted((*write(out, model.metadata, model.tensors), *first), notes)
        except BaseException:
            for path in first:  # half a pair helps nobody
                path.unlink()
            raise


def open_folder(folder: Path, *, format: Format = "auto", vision: bool = True) -> tuple[File, tuple[str, ...]]:
    """The one file that `convert` would write of `folder`, and its notes. Nothing is written.

    A tensor is converted when it is read: what a rule changes as a whole, the rest some rows at a time. Raises as
    `convert`, and a tensor's own trouble when it is read.
    """
    checkpoint = open_checkpoint(folder)
    try:
        model, seen, notes = _contents(checkpoint, format, vision=vision)
        metadata, tensors = {**seen.metadata, **model.metadata}, [*model.tensors, *seen.tensors]
        made = open_unwritten(folder, metadata, tensors, sources=checkpoint.paths, close=checkpoint.close)
        return made, notes
    except BaseException:
        checkpoint.close()
        raise


def _contents(checkpoint: Checkpoint, format: Format, *, vision: bool) -> tuple[NewFile, NewFile, tuple[str, ...]]:
    """What becomes of the text, what of pictures and sound (nothing where there is no such part), and notes."""
    text, *towers = find_rules(checkpoint, vision=vision)
    kind = _format(checkpoint, format)
    parts = [text, *towers]
    _check_known(checkpoint, parts, vision=vision)
    model = _content(checkpoint, text, kind)
    rows = next((t.shape[0] for t in model.tensors if t.name == "token_embd.weight"), None)
    if rows is None:
        raise FileError(f"{checkpoint.path} has no embeddings of tokens", hint="it is incomplete")
    own = checkpoint.vocabulary(rows)
    keys, about = own or vocabulary_keys(
        checkpoint.path, rows, has_vision=bool(towers), merged=text.merged, visible=text.visible
    )
    pooling = ranking_part(checkpoint, text, keys) or pooling_part(checkpoint.path, text.architecture)
    general = _general(checkpoint, text.architecture, "model", kind)
    model.metadata = {**general, **model.metadata, **keys, **pooling.keys}
    model.tensors += pooling.tensors
    seen = NewFile()
    for tower in towers:
        made = _content(checkpoint, tower, kind)
        if len({each.architecture for each in towers}) > 1:  # each says its own, as llama.cpp has it
            made.metadata[f"clip.{tower.part}.projector_type"] = made.metadata.pop("clip.projector_type")
        seen = NewFile({**seen.metadata, **made.metadata}, [*seen.tensors, *made.tensors])
    notes = (
        *checkpoint.notes,
        *about,
        *pooling.notes,
        *(note for part in parts for note in check_assumptions(checkpoint, part)),
    )
    return model, seen, notes


def check_folder(folder: Path, *, vision: bool = True) -> None:
    """Raises what `convert` would raise of a folder's settings. Its tensors need not be there."""
    find_rules(Description(folder), vision=vision)


def _general(checkpoint: Checkpoint, architecture: str, kind: str, format: QuantType) -> dict[str, Writable]:
    return {
        "general.architecture": architecture,
        "general.type": kind,
        "general.name": checkpoint.path.resolve().name,
        "general.file_type": _FILE_TYPES[format.name],
        "general.quantization_version": 2,
    }


def _format(checkpoint: Checkpoint, format: Format) -> QuantType:
    if format != "auto":
        return BY_NAME[format.upper()]
    stored = [checkpoint.stored(name) for name in checkpoint.names]
    kinds = {entry.dtype for entry in stored if len(entry.shape) > 1}
    return BY_NAME["BF16" if "BF16" in kinds else "F16"]


def _content(checkpoint: Checkpoint, rules: Rules, format: QuantType) -> NewFile:
    """Keys and tensors of one part."""
    settings = checkpoint.settings(rules)
    rules.check(settings)
    content = NewFile()
    for key in rules.keys:
        value = _value(key, settings)
        if value is not None:
            content.metadata[key.name.format(arch=rules.architecture)] = value
    tied = rules.part == "text" and _repeats_embeddings(checkpoint, settings)
    stacks: dict[str, list[str]] = {}  # the sources of those that are made of several
    for name in sorted(checkpoint.names, key=_numbers_by_value):
        for rule, found in () if _guesses(checkpoint, rules, name) else _matches(rules, name):
            target = _target(rule, found, settings)
            if "e" in found.groupdict():
                stacks.setdefault(target, []).append(name)
            elif not (tied and target == "output.weight"):
                content.tensors.append(_tensor(checkpoint, settings, rule, name, target, format))
    content.tensors += [_stack(checkpoint, settings, target, names, format) for target, names in stacks.items()]
    for made in rules.made:
        values = made.make(settings)
        if values is not None:
            content.tensors.append(NewTensor.of(made.target, values.astype(np.float32)))
    _check_layers(checkpoint, rules, settings, content)
    return content


def _repeats_embeddings(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Whether a head is stored that the model ties to its embeddings.

    Configurations within one another do not always agree on that, so the values decide.
    """
    head, table = "lm_head.weight", "embed_tokens.weight"
    if not {head, table} <= set(checkpoint.names) or not settings.get("tie_word_embeddings", "bool", False):
        return False
    one, other = checkpoint.stored(head), checkpoint.stored(table)
    if one.shape != other.shape or len(one.shape) != 2:
        return False
    step = max(1, _RUN // max(1, one.shape[1]))
    pieces = ((first, min(one.shape[0], first + step)) for first in range(0, one.shape[0], step))
    return all(np.array_equal(checkpoint.read(head, *piece), checkpoint.read(table, *piece)) for piece in pieces)


def _value(key: Key, settings: Settings) -> Typed | None:
    """A key's value with its type, or None where the key is left out."""
    if isinstance(key.path, str):
        value = settings.get(key.path, key.kind, key.default)
    else:
        value = key.path(settings)
        value = key.default if value is None else settings.check(key.name, value, key.kind)
    if value is None:
        return None
    kinds = {"int": ValueType.UINT32, "int32": ValueType.INT32, "float": ValueType.FLOAT32,
             "bool": ValueType.BOOL, "str": ValueType.STRING,
             "ints": ValueType.INT32, "floats": ValueType.FLOAT32, "bools": ValueType.BOOL}  # fmt: skip
    return Typed(kinds[key.kind], value)  # type: ignore[arg-type]


def _matches(rules: Rules, name: str) -> Iterator[tuple[Tensor, re.Match[str]]]:
    """The rules that name a tensor, each with the parts of that name."""
    for rule in rules.tensors:
        found = _pattern(rule.source).fullmatch(name)
        if found:
            yield rule, found


def _target(rule: Tensor, found: re.Match[str], settings: Settings) -> str:
    """The name of the tensor that a rule makes."""
    number = found.groupdict().get("n")
    if rule.number is not None:
        number = str(rule.number(settings, int(number or 0)))
    return rule.target.format(n=number) + (found["end"] or "")


@cache
def _pattern(source: str) -> re.Pattern[str]:
    """A rule's source: "{n}" is a number, "{e}" an expert's, "*" anything, and ".weight" or ".bias" may follow."""
    text = re.escape(source).replace(r"\{n\}", r"(?P<n>\d{1,5})").replace(r"\*", ".*")
    text = text.replace(r"\{e\}", r"(?P<e>\d{1,5})")
    return re.compile(text + r"(?P<end>\.weight|\.bias)?")


def _check_known(checkpoint: Checkpoint, rules: Sequence[Rules], *, vision: bool) -> None:
    """Raises ModelError for a tensor that no rule names: what is not understood is not left out silently."""
    for name in checkpoint.names:
        if any(any(_matches(part, name)) or _guesses(checkpoint, part, name) for part in rules):
            continue
        if _is_dropped(rules, name):
            continue
        of_media = len(rules) == 1 and is_checkpoint_media(name)
        if of_media and vision:
            what = "its part for pictures or sound cannot be converted"
            raise ModelError(f"{checkpoint.path}: {what}", hint="vision=False (--no-vision) leaves it out")
        if not of_media:
            raise ModelError(f"{checkpoint.path}: nobody knows tensor {name:.80}", hint="a newer opsin may")


def _guesses(checkpoint: Checkpoint, rules: Rules, name: str) -> bool:
    """Whether a tensor is of a layer behind the text's own, which guesses further tokens."""
    found = re.match(r"layers\.(\d{1,5})\.", name) if rules.guesses else None
    return found is not None and int(found[1]) >= checkpoint.settings(rules).number("num_hidden_layers")


def _is_dropped(rules: Sequence[Rules], name: str) -> bool:
    return any(_pattern(source).fullmatch(name) for part in rules for source in part.dropped)


def _check_layers(checkpoint: Checkpoint, rules: Rules, settings: Settings, content: NewFile) -> None:
    """Raises FileError where the text's layers are not as many as config.json says."""
    if rules.part != "text":
        return
    names, more = [tensor.name for tensor in content.tensors], settings.get("next_token_layers", "int", 0)
    assert isinstance(more, int)
    layers = settings.number(rules.layers) + more
    found = {int(name.split(".")[1]) for name in names if name.startswith("blk.")}
    if found != set(range(layers)):
        raise FileError(f"{checkpoint.path} holds {len(found)} of its {layers} layers", hint="it is incomplete")


def _tensor(
    checkpoint: Checkpoint, settings: Settings, rule: Tensor, name: str, target: str, format: QuantType
) -> NewTensor:
    stored = checkpoint.stored(name)
    shape = (rule.shape(stored.shape, settings) if rule.shape else stored.shape) or (1,)
    kind = BY_NAME[rule.type] if rule.type else _kind_of(target, shape, format)
    kind = BY_NAME["F16"] if rule.plain and kind.elements > 1 else kind
    if rule.blocks is not None:
        return NewTensor(target, shape, kind.id, MadeRows(partial(_coded, checkpoint, rule, name)))
    if rule.each is not None:
        return NewTensor(target, shape, kind.id, MadeRows(partial(_experts, checkpoint, settings, rule, name, kind)))
    if rule.change is None:
        return NewTensor(target, shape, kind.id, MadeRows(partial(_rows, checkpoint, name, kind)))

    def changed() -> Iterator[npt.NDArray[np.uint8]]:
        assert rule.change is not None
        values = rule.change(checkpoint.read(name), settings)
        assert values.shape == shape, f"{name} became {values.shape}, not {shape}"
        step = max(1, _RUN // math.prod(shape[1:]))
        return (_encode(values[first : first + step], kind) for first in range(0, shape[0], step))

    return NewTensor(target, shape, kind.id, changed)


def _experts(
    checkpoint: Checkpoint, settings: Settings, rule: Tensor, name: str, kind: QuantType, first: int, last: int
) -> npt.NDArray[np.uint8]:
    """The blocks of some experts, each of which `rule.each` changes."""
    assert rule.each is not None
    found = [rule.each(checkpoint.read(name, e, e + 1)[0], settings) for e in range(first, last)]
    return np.concatenate([_encode(values, kind) for values in found])


def _coded(checkpoint: Checkpoint, rule: Tensor, name: str, first: int, last: int) -> npt.NDArray[np.uint8]:
    """The blocks of some experts, from codes and their scales. Raises FileError where these do not go together."""
    assert rule.blocks is not None and rule.scales is not None
    scales = name.rpartition(".")[0] + "." + rule.scales
    shape = checkpoint.stored(name).shape
    if scales not in checkpoint.names or checkpoint.stored(scales).shape != shape[:-1]:
        raise FileError(f"{checkpoint.path}: {name} has no scales of {shape[:-1]}", hint="it is incomplete")
    codes, exponents = checkpoint.raw(name, first, last), checkpoint.raw(scales, first, last)
    parts = zip(codes.reshape(last - first, *shape[1:]), exponents.reshape(last - first, *shape[1:-1]), strict=True)
    return np.concatenate([rule.blocks(code, scale).reshape(-1) for code, scale in parts])


def _stack(
    checkpoint: Checkpoint, settings: Settings, target: str, names: Sequence[str], format: QuantType
) -> NewTensor:
    """Matrices of experts, which a checkpoint holds apart, as one tensor. Raises FileError where one is missing."""
    count, shape = settings.number(EXPERTS), checkpoint.stored(names[0]).shape
    if len(names) != count or any(checkpoint.stored(name).shape != shape for name in names):
        raise FileError(f"{checkpoint.path}: {target} is made of {len(names)} of {count} experts, or not alike ones")
    kind = _kind_of(target, (count, *shape), format)

    def rows(first: int, last: int) -> npt.NDArray[np.uint8]:
        return np.concatenate([_rows(checkpoint, name, kind, 0, shape[0]) for name in names[first:last]])

    return NewTensor(target, (count, *shape), kind.id, MadeRows(rows))


def _kind_of(target: str, shape: tuple[int, ...], format: QuantType) -> QuantType:
    """The number format of a tensor, as llama.cpp's converter chooses it."""
    if len(shape) <= 1 or target.endswith("_norm.weight"):
        return BY_NAME["F32"]
    if len(shape) > 2 and not target.endswith("_exps.weight"):  # kernels of convolutions
        return BY_NAME["F16" if format.name == "F16" else "F32"]
    if not target.endswith(".weight"):
        return BY_NAME["F32"]
    return format if shape[-1] % format.elements == 0 else BY_NAME["F16"]


def _rows(checkpoint: Checkpoint, name: str, kind: QuantType, first: int, last: int) -> npt.NDArray[np.uint8]:
    """The blocks of rows of a tensor that stays as it is: the same bytes, where it has the same format."""
    if checkpoint.stored(name).dtype == kind.name:
        return checkpoint.raw(name, first, last)
    return _encode(checkpoint.read(name, first, last), kind)


def _encode(values: npt.NDArray[np.float32], kind: QuantType) -> npt.NDArray[np.uint8]:
    assert kind.encode is not None
    return kind.encode(np.ascontiguousarray(values).reshape(-1, kind.elements)).reshape(-1)


def _numbers_by_value(name: str) -> list[tuple[int, str]]:
    """Sorts layers by number."""
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in name.split(".")]
