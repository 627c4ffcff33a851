"""Which files make a model: one of text, one for pictures beside it, or one that holds both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opsin.config import expanded
from opsin.errors import FileError, RequestError
from opsin.gguf import File
from opsin.gguf.kinds import is_speech_file
from opsin.hub.file_names import is_beside, is_later_split, is_vision, kinship
from opsin.hub.found import Found, Notice
from opsin.hub.locate import is_place, locate
from opsin.models import open_model


@dataclass(frozen=True)
class Files:
    """The files of one model.

    Attributes:
        text: the file of the text model, or of all; or a folder as transformers saves it.
        vision: files of the part for pictures: the one that a person named, else all that lie beside the text's, the
            likelier ones by their names first.
        chosen: whether a person named the vision file, or the store that holds both.
        found: what a store says of them, where they come from one.
    """

    text: Path
    vision: tuple[Path, ...] = ()
    chosen: bool = False
    found: Found | None = None

    @property
    def name(self) -> str:
        """What people call the model."""
        if self.found is not None:
            return self.found.name
        return self.text.resolve().name if self.text.is_dir() else self.text.name.removesuffix(".gguf")

    def open(self, *, vision: bool = True) -> tuple[File, tuple[str, ...]]:
        """The text's file with what a store says beside it, and what a person should know of that.

        A folder of transformers is the one file that `opsin convert` would write of it; `vision`: with its part for
        pictures.
        """
        file, notes = self._open(vision)
        if self.found is None:
            return file, notes
        missing = {key: value for key, value in self.found.defaults.items() if key not in file.metadata}
        taken = [f"the file lacks {key}: a template of the form that its store has is taken" for key in missing]
        return file.with_keys({**missing, **self.found.keys}), (*notes, *self.found.notes, *taken)

    def _open(self, vision: bool) -> tuple[File, tuple[str, ...]]:
        if not self.text.is_dir() and not is_speech_file(self.text):
            return open_model(self.text), ()
        from opsin.convert.hf import open_folder

        return open_folder(self.text, vision=vision)


def find(
    path: str | Path, mmproj: str | Path | None, *, vision: bool, verify: bool = False, notice: Notice | None = None
) -> Files:
    """The files that belong together. `path` may be a folder with one model in it, of transformers, or a store's name.

    `verify` compares files of a store with their digests. Raises FileError for a folder that holds none or several.
    """
    if isinstance(path, str) and is_place(path):
        from opsin.convert.hf import check_folder

        own = vision and mmproj is None
        found = locate(path, vision=own, notice=notice, check=partial(check_folder, vision=own))
        if verify:
            found.verify(notice)
        return _of_store(found, mmproj, vision=vision)
    if verify:
        raise RequestError(f"there is no digest to compare {path} with", hint="stores have: ollama:NAME, hf:REPO")
    path = expanded(path)
    text = _model_in(path) if path.is_dir() else path
    if not vision:
        return Files(text)
    if mmproj is not None:
        return Files(text, (expanded(mmproj),), chosen=True)
    folder = text if text.is_dir() else text.parent
    beside = _files_in(folder, lambda file: is_vision(file.name) and file.name != text.name)
    return Files(text, tuple(sorted(beside, key=lambda file: -kinship(text.name, file.name))))


def _of_store(found: Found, mmproj: str | Path | None, *, vision: bool) -> Files:
    if not vision:
        return Files(found.text, found=found)
    if mmproj is not None:
        return Files(found.text, (expanded(mmproj),), chosen=True, found=found)
    return Files(found.text, found.vision, chosen=len(found.vision) == 1, found=found)


def _model_in(folder: Path) -> Path:
    """The GGUF file of a folder, or the folder where it is a checkpoint of transformers without such a file."""
    found = _files_in(folder, lambda path: not is_vision(path.name))
    models = [path for path in found if not is_beside(path.name)] or found
    if not models:
        from opsin.convert.checkpoint import is_checkpoint

        if is_checkpoint(folder):
            return folder
    if len(models) != 1:
        listed = f"give one of {', '.join(path.name for path in models)}"
        raise FileError(
            f"{folder} holds {len(models) or 'no'} models",
            hint=listed if models else "give a .gguf file, the first of its splits, or a folder of safetensors",
        )
    return models[0]


def _files_in(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """The .gguf files of a folder, without later splits; one that has several names counts once."""
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    except OSError:  # it is not there, which whoever opens the file will say, or cannot be listed
        return []
    found = [path for path in names if wanted(path) and not path.name.startswith(".") and not is_later_split(path.name)]
    return list({path.resolve(): path for path in reversed(found) if path.is_file()}.values())[::-1]
