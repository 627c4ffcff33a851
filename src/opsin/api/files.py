"""Which files make a model: one of text, one for pictures beside it, or one that holds both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opsin.errors import FileError


@dataclass(frozen=True)
class Files:
    """The files of one model.

    Attributes:
        text: the file of the text model, or of all.
        vision: the file of the part for pictures; None where nobody knows of one beside the text's.
        chosen: whether a person named the vision file; else it was found in the folder.
        notes: what a person should know of the choice.
    """

    text: Path
    vision: Path | None = None
    chosen: bool = False
    notes: tuple[str, ...] = ()


def find(path: str | Path, mmproj: str | Path | None, *, vision: bool) -> Files:
    """The files that belong together. `path` may be a folder with one model in it.

    Raises FileError for a folder that holds none or several.
    """
    text = _model_in(Path(path)) if Path(path).is_dir() else Path(path)
    if not vision:
        return Files(text)
    if mmproj is not None:
        return Files(text, Path(mmproj), chosen=True)
    beside = [] if _is_vision(text) else sorted(p for p in text.parent.glob("*.gguf") if _is_vision(p) and p != text)
    if len(beside) > 1:
        return Files(
            text, notes=(f"several files for pictures beside {text.name}: {_listed(beside)}; choose a mmproj",)
        )
    return Files(text, beside[0] if beside else None)


def _is_vision(path: Path) -> bool:
    """By its name, as llama.cpp's users name such files."""
    return "mmproj" in path.name.lower()


def _model_in(folder: Path) -> Path:
    models = sorted(p for p in folder.glob("*.gguf") if not _is_vision(p) and not _is_later_split(p))
    if len(models) != 1:
        hint = f"give one of {_listed(models)}" if models else "give a .gguf file or the first of its splits"
        raise FileError(f"{folder} holds {len(models) or 'no'} models", hint=hint)
    return models[0]


def _is_later_split(path: Path) -> bool:
    """Whether it is named NAME-00002-of-00003.gguf or the like, and so no beginning."""
    parts = path.stem.rsplit("-", 3)
    return len(parts) == 4 and parts[2] == "of" and parts[1].isdigit() and int(parts[1]) != 1


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)
