"""How a family's checkpoint of transformers becomes GGUF: plain data that `convert` executes.

A family's file lists its rules as RULES, one entry for its text and one for its pictures. A rule names tensors and
settings; what must be computed is a small function beside it. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from opsin.arrays import Bytes, Floats
from opsin.errors import FileError

Shape = tuple[int, ...]
Kind = Literal["int", "int32", "float", "bool", "str", "ints", "floats", "bools"]

REQUIRED = object()
_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,), "int32": (int,), "float": (int, float), "bool": (bool,), "str": (str,),
    "ints": (int,), "floats": (int, float), "bools": (bool,),
}  # fmt: skip


class Settings:
    """The settings of a checkpoint, by paths as "vision_config.hidden_size".

    The tree is config.json; what other files say stands under "preprocessor" (preprocessor_config.json, with the
    image_processor of processor_config.json), "tokenizer" (tokenizer_config.json), "generation" and "added_tokens" (the
    ids of the tokens that tokenizer.json adds, by their texts). "next_token_layers" is how many layers that guess are
    kept (`Rules.next_token`), null for none. Where text is converted, the settings of text_config stand at the root as
    well. `defaults` count at the root where config.json is silent, as those of transformers' class do.
    """

    def __init__(self, where: str, tree: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> None:
        self.where, self.tree, self.defaults = where, tree, defaults or {}

    def find(self, paths: str) -> object:
        """The first of some paths, joined by "|", that leads to anything but null; else None."""
        for path in paths.split("|"):
            node: object = self.tree
            for name in path.split("."):
                node = node.get(name) if isinstance(node, Mapping) else None
            if node is not None:
                return node
        silent = (path for path in paths.split("|") if path not in self.tree)  # null is said, and means nothing
        return next((self.defaults[path] for path in silent if path in self.defaults), None)

    def get(self, paths: str, kind: Kind, default: object = REQUIRED) -> object:
        """The value at the first path that there is, of this kind. Raises FileError for another, or for none."""
        value = self.find(paths)
        if value is None:
            if default is REQUIRED:
                raise FileError(
                    f"{self.where} does not say {paths.split('|')[0]}", hint="its config.json is incomplete"
                )
            return default
        return self.check(paths, value, kind)

    def check(self, paths: str, value: object, kind: Kind) -> object:
        """`value`, which must be of this kind. Raises FileError, naming the path."""
        values = value if kind.endswith("s") else [value]
        allowed = _TYPES[kind]
        if not isinstance(values, list | tuple | np.ndarray) or not all(
            isinstance(v, allowed) and (bool in allowed or not isinstance(v, bool)) for v in values
        ):
            raise FileError(f"{self.where}: {paths} is {value!r:.60}, not of the kind {kind}", hint="mend config.json")
        if kind in ("int", "int32") and not 0 <= values[0] < 1 << (32 if kind == "int" else 31):
            raise FileError(f"{self.where}: {paths} is {value}", hint="mend config.json")
        if kind == "float":
            return float(values[0])
        return [float(v) for v in values] if kind == "floats" else value

    def number(self, paths: str, default: int | None = None) -> int:
        """A whole number of one and more. Raises FileError."""
        value = self.get(paths, "int", REQUIRED if default is None else default)
        assert isinstance(value, int)
        if not 0 < value < 1 << 31:
            raise FileError(f"{self.where}: {paths.split('|')[0]} is {value}", hint="mend config.json")
        return value


Change = Callable[[Floats, Settings], Floats]


@dataclass(frozen=True)
class Key:
    """A key of the file.

    Attributes:
        name: with "{arch}" for the architecture.
        path: where its value stands, or what computes it (None: the key is left out).
        kind: how it is written: int as UINT32, int32 as INT32, float as FLOAT32, ints as INT32s.
        default: where nothing stands at `path`; None leaves the key out.
    """

    name: str
    path: str | Callable[[Settings], object]
    kind: Kind = "int"
    default: object = REQUIRED


def constant(name: str, value: object, kind: Kind) -> Key:
    """A key that every file of the family has."""
    return Key(name, lambda _: value, kind)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file, made from one of the checkpoint. One source may be named by several rules.

    Attributes:
        source: its name there, with "{n}" for a number. ".weight" and ".bias" may be left away: both are meant, and
            the target gets the same end. Sources with "{e}", an expert's number, become one tensor together.
        target: its name here.
        change: gives its values.
        shape: gives their shape from the source's, where `change` makes another.
        type: the number format that it always gets.
        plain: it gets F16 where others get blocks.
        number: "{n}" of the target, from that of the source (0 where it has none), where files count otherwise.
        each: gives the values of one expert from those that the source holds of it, one expert behind the other; so
            that no more than one has to be in memory. `shape` tells of the whole.
        scales, blocks: what the source holds are codes, the scales stand in another one of this name; gives the blocks
            of one expert in the number format `type` from the bytes of both.
    """

    source: str
    target: str
    change: Change | None = None
    shape: Callable[[Shape, Settings], Shape] | None = None
    type: str | None = None
    plain: bool = False
    number: Callable[[Settings, int], int] | None = None
    each: Change | None = None
    scales: str | None = None
    blocks: Callable[[Bytes, Bytes], Bytes] | None = None


@dataclass(frozen=True)
class ComputedTensor:
    """A tensor that no checkpoint holds, computed from settings; none where `make` gives None. Always F32."""

    target: str
    make: Callable[[Settings], Floats | None]


@dataclass(frozen=True)
class Judge:
    """A model that ranks, though nothing in its config.json says so: the odds of two tokens are a pair's score.

    Attributes:
        name: what its folder or the heading of its README calls it, in small letters.
        labels: the texts of the tokens, that of a good document first.
        template: how a pair is written, with "{query}" and "{document}".
    """

    name: str
    labels: tuple[str, str]
    template: str


@dataclass(frozen=True)
class Rules:
    """One part of a family's checkpoints.

    Attributes:
        part: "text", or "vision" and "audio" for a tower with its projector.
        architecture: general.architecture of text, clip.projector_type of a tower.
        classes: `architectures` of config.json that hold such a part.
        types: of text, `model_type` of a text_config that is one, inside any class; of a tower, `model_type` of the
            vision_config, where a class may hold towers of several families.
        keys, tensors, made: what the file gets.
        defaults: settings that transformers' class takes where config.json is silent.
        dropped: tensors that are left out, written as `Tensor.source`; a "*" stands for anything.
        check: raises for a checkpoint that nobody could run.
        assumed: what the family's code takes for granted of settings that may say otherwise: values, or functions of
            the settings that give them.
        guesses: whether there may be layers behind the text's own, which guess further tokens and are left out.
        next_token: a tensor that each layer of that kind has which is kept, written as `Tensor.source`.
        when: whether a config.json is of these, where several models go by one class name.
        layers: the setting that says how many layers the text has.
        merged: tokenizer.ggml.model of files that hold the merges of a tokenizer of SentencePiece's kind, where others
            hold scores.
        visible: special tokens that are part of an answer's text.
        judge: how those of them rank that do, where their settings say nothing.
    """

    part: Literal["text", "vision", "audio"]
    architecture: str
    classes: tuple[str, ...]
    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    types: tuple[str, ...] = ()
    made: tuple[ComputedTensor, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    check: Callable[[Settings], None] = lambda settings: None
    assumed: Mapping[str, object] = field(default_factory=dict)
    guesses: bool = False
    next_token: str | None = None
    when: Callable[[Mapping[str, object]], bool] = lambda config: True
    layers: str = "num_hidden_layers"
    merged: str | None = None
    visible: tuple[str, ...] = ()
    judge: Judge | None = None


def canonical(name: str) -> str:
    """A tensor's name as rules write it, whatever version of transformers saved it.

    Text is "embed_tokens.weight", "layers.0...", "norm.weight", "lm_head.weight"; a tower keeps its own beginning
    (`gguf.roles` lists them), without "model." or "thinker." before it and "vision_model." after "vision_tower.".
    """
    for start in ("thinker.", "model.", "language_model.", "text_model.", "llm.", "model."):
        name = name.removeprefix(start)
    return name.replace("vision_tower.vision_model.", "vision_tower.", 1)


def flat(values: Floats, settings: Settings) -> Floats:
    """[first, ...] as [first, all others]: kernels of one channel each."""
    return values.reshape(len(values), -1)


def flat_shape(shape: Shape, settings: Settings) -> Shape:
    """That of `flat`."""
    return shape[0], prod(shape[1:])


def plus_one(values: Floats, settings: Settings) -> Floats:
    """The weight of a norm that multiplies with one more than it holds."""
    return values + np.float32(1)


def neighbours(heads: str, default: int | None = None) -> Change:
    """Rows of each head from two halves that turn together to neighbouring pairs; `heads` is a setting's path."""

    def change(values: Floats, settings: Settings) -> Floats:
        count = settings.number(heads, default)
        if len(values) % (2 * count):
            raise FileError(f"{settings.where}: {len(values)} rows are no {count} heads", hint="mend config.json")
        halves = values.reshape(count, 2, len(values) // count // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)

    return change
