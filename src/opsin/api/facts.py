"""What a text model's file says of itself, kept for whoever asks later."""

from __future__ import annotations

from dataclasses import dataclass

from opsin.engine.sampling import Sampling
from opsin.errors import FileError, RequestError
from opsin.gguf import File
from opsin.gguf.file_types import file_type_name
from opsin.gguf.roles import is_projector
from opsin.text import vocabulary_type


@dataclass(frozen=True)
class Facts:
    """Of the part that writes.

    Attributes:
        parameters: weights.
        bytes: of these in the file.
        file_type: what most of them are, as llama.cpp's programs call it; "" where the file does not say.
        vocabulary_type: the number of llama.cpp's enum.
        sampling: the sampling options that its maker recommends, for whoever names no others.
        stop: texts that end an answer, and
        system: the system message, for whoever gives no others; stores know them, files do not.
    """

    parameters: int
    bytes: int
    file_type: str
    vocabulary_type: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    system: str = ""

    @classmethod
    def of(cls, file: File) -> Facts:
        own = [info for name, info in file.tensors.items() if not is_projector(name)]
        return cls(
            parameters=sum(info.elements for info in own),
            bytes=sum(info.nbytes for info in own),
            file_type=file_type_name(file.metadata.get("general.file_type")),
            vocabulary_type=vocabulary_type(file.metadata),
            sampling=read_sampling(file),
        )


def read_sampling(file: File) -> Sampling:
    """What a file says of sampling (general.sampling.*), over our own defaults.

    Raises FileError where that is no sampling.
    """

    def number(name: str, own: float) -> float:
        return round(file.get_float(f"general.sampling.{name}", own), 6)  # kept as float32: 0.95 is not quite

    own = Sampling()
    try:
        return Sampling(
            temperature=number("temp", own.temperature),
            top_k=max(0, file.get_int("general.sampling.top_k", own.top_k)),  # -1 keeps all, too
            top_p=number("top_p", own.top_p),
            min_p=number("min_p", own.min_p),
        )
    except RequestError as error:
        raise FileError(f"{file.path}: general.sampling: {error.args[0]}", hint="the file is damaged") from error
