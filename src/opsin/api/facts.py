"""What a text model's file says of itself, kept for whoever asks later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from opsin.api.identity import identity_of
from opsin.engine.pooling import Pooling
from opsin.engine.sampling import MOST_SAMPLERS, Sampling, read_samplers
from opsin.errors import FileError, RequestError
from opsin.gguf import File
from opsin.gguf.file_types import file_type_name
from opsin.gguf.roles import is_projector
from opsin.text import vocabulary_type

# Keys below general.sampling, those of llama.cpp and those of Ollama's parameters, and the options that they are.
SAMPLING_KEYS: Final = {
    "temp": "temperature", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p",
    "xtc_probability": "xtc_probability", "xtc_threshold": "xtc_threshold", "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "repeat_last_n", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
    "mirostat": "mirostat", "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip


_POOLINGS: Final[dict[int, Pooling]] = {1: "mean", 2: "cls", 3: "last"}


@dataclass(frozen=True)
class Facts:
    """Of the part that writes.

    Attributes:
        architecture: the family, as general.architecture has it.
        parameters: weights.
        bytes: of these in the file.
        file_type: what most of them are, as llama.cpp's programs call it; "" where the file does not say.
        vocabulary_type: the number of llama.cpp's enum.
        sampling: the sampling options that its maker recommends, for whoever names no others.
        stop: texts that end an answer, and
        system: the system message, for whoever gives no others; stores know them, files do not.
        suppressed: ids that are never written.
        pooling: how its states become an embedding; None where the file does not say.
        identity: what tells the file from others.
        rank_template: how a query and a document are written for a model that ranks; "" where the file has none.
    """

    architecture: str
    parameters: int
    bytes: int
    file_type: str
    vocabulary_type: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    system: str = ""
    suppressed: tuple[int, ...] = ()
    pooling: Pooling | None = None
    identity: str = ""
    rank_template: str = ""

    @classmethod
    def of(cls, file: File) -> Facts:
        own = [info for name, info in file.tensors.items() if not is_projector(name)]
        return cls(
            architecture=file.get_str("general.architecture", ""),
            parameters=sum(info.elements for info in own),
            bytes=sum(info.nbytes for info in own),
            file_type=file_type_name(file.metadata.get("general.file_type")),
            vocabulary_type=vocabulary_type(file.metadata),
            sampling=read_sampling(file),
            suppressed=_suppressed(file),
            pooling=_pooling(file),
            identity=identity_of(file),
            rank_template=file.get_str("tokenizer.chat_template.rerank", ""),
        )


def read_sampling(file: File) -> Sampling:
    """What a file says of sampling (general.sampling.*), over our own defaults.

    Raises FileError where that is no sampling.
    """
    own = Sampling()
    told: dict[str, object] = {}
    for key, name in SAMPLING_KEYS.items():
        default = getattr(own, name)
        if isinstance(default, int):
            told[name] = file.get_int(f"general.sampling.{key}", default)
        else:
            value = file.get_float(f"general.sampling.{key}", default)
            told[name] = round(value, 6)  # kept as float32: 0.95 is not quite
    told["top_k"] = max(0, file.get_int("general.sampling.top_k", own.top_k))  # -1 keeps all, too
    sequence = file.metadata.get("general.sampling.sequence")
    if isinstance(sequence, str) and sequence:
        told["samplers"] = read_sequence(sequence)[0]
    try:
        return Sampling(**told)  # type: ignore[arg-type]
    except RequestError as error:
        raise FileError(f"{file.path}: general.sampling: {error.args[0]}", hint="the file is damaged") from error


def read_sequence(text: str) -> tuple[list[str], list[str]]:
    """Samplers whose names stand between semicolons, and those names that are none."""
    known: list[str] = []
    strange: list[str] = []
    for name in [part.strip() for part in text.split(";") if part.strip()][:MOST_SAMPLERS]:
        try:
            known += read_samplers([name])
        except RequestError:
            strange.append(name)
    return known, strange


def _pooling(file: File) -> Pooling | None:
    """What `pooling_type` says, a number of llama.cpp's enum. 0, nothing, is what converters write of no knowledge."""
    number = file.get_int(f"{file.get_str('general.architecture', '')}.pooling_type", 0)
    return _POOLINGS.get(number)


def _suppressed(file: File) -> tuple[int, ...]:
    ids = file.metadata.get("tokenizer.ggml.suppress_tokens")
    if not isinstance(ids, np.ndarray) or not np.issubdtype(ids.dtype, np.integer):
        return ()
    return tuple(sorted({int(id) for id in ids if id >= 0}))
