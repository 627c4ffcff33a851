"""What a store holds of one model, and the check of its digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from opsin.errors import FileError

Notice = Callable[[str], None]  # told, in a line, when something slow happens
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Found:
    """The files of a model in somebody's store, and what the store says of it beside them.

    Attributes:
        name: what people call the model.
        text: the file of the text model, or of all; or a folder as transformers saves it.
        vision: files of the part for pictures. Where there is one, it is the model's own.
        digests: SHA-256 in hex of all files, "" where a store has none.
        keys: GGUF keys that count before those of the file: its owner set them.
        defaults: GGUF keys that count where the file has none.
        context: tokens of prompt and answer, where nobody asks for another number; None: the file's.
        stop: texts that end an answer, and
        system: the system message, where nobody gives others; "" where there is none.
        notes: what a person should know.
    """

    name: str
    text: Path
    vision: tuple[Path, ...] = ()
    digests: Mapping[Path, str] = field(default_factory=dict)
    keys: Mapping[str, str | int | float] = field(default_factory=dict)
    defaults: Mapping[str, str | int | float] = field(default_factory=dict)
    context: int | None = None
    stop: tuple[str, ...] = ()
    system: str = ""
    notes: tuple[str, ...] = ()

    def verify(self, notice: Notice | None = None) -> None:
        """Read all files whole. Raises FileError for one that is not what its digest says, or that has none."""
        for path, wanted in self.digests.items():
            if not wanted:
                raise FileError(f"{path} was published without a SHA-256 digest", hint="load it without the check")
            if notice is not None:
                notice(f"checking the digest of {self.name} ({path.stat().st_size / 1e6:.0f} MB)")
            if digest_of(path) != wanted:
                raise FileError(f"{path} is damaged: its SHA-256 is not {wanted}", hint="remove it and fetch it again")


def digest_of(path: Path) -> str:
    """SHA-256 in hex of a file, which is read whole."""
    made = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                made.update(piece)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", hint="check the disk") from error
    return made.hexdigest()
