"""What a text model's file says of itself, kept for whoever asks later."""

from __future__ import annotations

from dataclasses import dataclass

from opsin.gguf import File
from opsin.gguf.file_types import file_type_name
from opsin.text import vocabulary_type

_OTHER_PARTS = ("v.", "mm.", "a.")  # how the tensors of parts for pictures and sound begin


@dataclass(frozen=True)
class Facts:
    """Of the part that writes.

    Attributes:
        parameters: weights.
        bytes: of these in the file.
        file_type: what most of them are, as llama.cpp's programs call it; "" where the file does not say.
        vocabulary_type: the number of llama.cpp's enum.
    """

    parameters: int
    bytes: int
    file_type: str
    vocabulary_type: int

    @classmethod
    def of(cls, file: File) -> Facts:
        own = [info for name, info in file.tensors.items() if not name.startswith(_OTHER_PARTS)]
        return cls(
            parameters=sum(info.elements for info in own),
            bytes=sum(info.nbytes for info in own),
            file_type=file_type_name(file.metadata.get("general.file_type")),
            vocabulary_type=vocabulary_type(file.metadata),
        )
