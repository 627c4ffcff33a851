"""How a checkpoint's states become an embedding, which sentence-transformers writes beside it: modules.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opsin.convert.checkpoint import read_json, read_list
from opsin.convert.safetensors import Safetensors
from opsin.errors import FileError
from opsin.gguf import NewTensor, Typed, ValueType
from opsin.gguf.writer import Writable

_MODES = {"mean": 1, "cls": 2, "lasttoken": 3}  # llama.cpp's numbers
_NAMES = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
_DENSE = ("dense_2", "dense_3")
_ACTIVATIONS = {"Identity": "", "Tanh": "tanh"}


@dataclass
class PoolingPart:
    """What a file holds of how states become embeddings or scores."""

    keys: dict[str, Writable] = field(default_factory=dict)
    tensors: list[NewTensor] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pooling_part(folder: Path, architecture: str) -> PoolingPart:
    """The pooling, and matrices behind it, where modules.json names such; and notes on what a file cannot say.

    Raises FileError for a matrix that is not there or not as its config.json says.
    """
    found, names = PoolingPart(), iter(_DENSE)
    for module in read_list(folder / "modules.json"):
        if not isinstance(module, dict):
            continue
        kind, own = str(module.get("type", "")).rpartition(".")[2], folder / Path(str(module.get("path", ""))).name
        if kind == "Pooling":
            modes = [*_modes(read_json(own / "config.json", optional=True))]
            if len(modes) == 1:
                found.keys[f"{architecture}.pooling_type"] = Typed(ValueType.UINT32, modes[0])
            else:
                found.notes.append("modules.json pools in a way that GGUF has no key for: give the pooling by hand")
        elif kind == "Dense" and own != folder and (name := next(names, None)) is not None:
            _add_dense(found, own, architecture, name)
        elif kind not in ("", "Transformer", "Normalize", "LogitScore"):
            found.notes.append(f"modules.json has a part {kind!r:.40} behind the model, which the file does not have")
    return found


def _modes(config: Mapping[str, object]) -> Iterator[int]:
    """The poolings that are told, in either form."""
    for name, number in _MODES.items():
        if config.get(f"pooling_mode_{_NAMES[name]}") is True or config.get("pooling_mode") == name:
            yield number


def _add_dense(found: PoolingPart, folder: Path, architecture: str, name: str) -> None:
    """A matrix behind the pooling, with its bias and activation (`{arch}.dense_2_activation`: a key of ours)."""
    told = str(read_json(folder / "config.json").get("activation_function", "Tanh")).rpartition(".")[2]
    if told not in _ACTIVATIONS:
        raise FileError(f"{folder}: the activation {told!r:.40} cannot be converted", hint="Identity and Tanh can")
    if _ACTIVATIONS[told]:
        found.keys[f"{architecture}.{name}_activation"] = Typed(ValueType.STRING, _ACTIVATIONS[told])
    with Safetensors(folder / "model.safetensors") as stored:
        for part in ("weight", "bias"):
            if f"linear.{part}" in stored.tensors:
                values = stored.read(f"linear.{part}").astype(np.float32)
                found.tensors.append(NewTensor.of(f"{name}.{part}", values))
            elif part == "weight":
                raise FileError(f"{folder} has no tensor linear.weight", hint="it is incomplete")
